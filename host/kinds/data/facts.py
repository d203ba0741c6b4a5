#!/usr/bin/env python3
"""Writes facts.txt: the fields of every definition that kinds.txt reaches, as facts (no prose).

Usage: facts.py DEFINITIONS_JSON GO_ROOT
  DEFINITIONS_JSON  kubernetes-validate's _definitions.json (names, required, x-kubernetes-* extensions)
  GO_ROOT           a folder with api/, apimachinery/, apiextensions-apiserver/ and kube-aggregator/ (k8s.io modules of the same version):
                    Go type names, omitempty and pointers, default and enum markers
"""
import json, os, re, sys

defs = json.load(open(sys.argv[1]))["$defs"]
root = sys.argv[2]
here = os.path.dirname(os.path.abspath(__file__))
PREFIXES = {
    "k8s.io/api/": "api/", "k8s.io/apimachinery/": "apimachinery/",
    "k8s.io/apiextensions-apiserver/": "apiextensions-apiserver/", "k8s.io/kube-aggregator/": "kube-aggregator/",
}
ANY = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension", "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
LEAF = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q", "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "ios",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t", "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "mt",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Duration": "dur",
}
LEAF.update({name: "*" for name in ANY})
# Alpha fields that would show as empty structs in every object.
SKIPPED = {("io.k8s.api.storage.v1.CSINode", "status")}
GO_SCALARS = {"string": "s", "int32": "i32", "int64": "i64", "int": "i64:int", "bool": "b", "float64": "f64", "uint8": "i32:uint8", "uint16":"i32:uint16", "uint32":"i64:uint32", "uint64":"i64:uint64"}


class Package:
    """The types and constants of one Go package folder."""
    cache = {}

    @classmethod
    def get(cls, folder):
        if folder not in cls.cache:
            cls.cache[folder] = Package(folder)
        return cls.cache[folder]

    def __init__(self, folder):
        self.types, self.consts, self.enums, self.name = {}, {}, set(), os.path.basename(folder)
        self.folder = folder
        full = os.path.join(root, folder)
        for file in sorted(os.listdir(full)) if os.path.isdir(full) else []:
            if file.endswith(".go") and not file.endswith("_test.go") and not file.startswith(("generated.pb", "zz_")):
                self.read(open(os.path.join(full, file)).read())

    def read(self, text):
        m = re.search(r"^package (\w+)", text, re.M)
        self.name = m.group(1)
        imports = {}
        for block in re.findall(r"^import \((.*?)^\)", text, re.M | re.S) + re.findall(r'^import (.*)$', text, re.M):
            for alias, path in re.findall(r'^\s*(\w+)?\s*"([^"]+)"', block, re.M):
                imports[alias or path.split("/")[-1]] = path
        for m in re.finditer(r"()^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
            self.types[m.group(2)] = ("struct", m.group(3), imports)
        for m in re.finditer(r"((?:^//.*\n)*)^type (\w+) (?!struct\b|interface\b)(=? ?[^\n{]+)$", text, re.M):
            self.types[m.group(2)] = ("named", m.group(3).split("//")[0].strip(), imports)
            if re.search(r"^// \+enum\s*$", m.group(1), re.M):
                self.enums.add(m.group(2))
        for m in re.finditer(r'^\s*(?:const )?(\w+)\s+(\w+)?\s*=\s*"((?:[^"\\]|\\.)*)"', text, re.M):
            self.consts[m.group(1)] = (m.group(2), m.group(3))
        for m in re.finditer(r'^\s*(\w+)\s*(?:\w+)?\s*=\s*(\w+)\("((?:[^"\\]|\\.)*)"\)', text, re.M):
            self.consts[m.group(1)] = (m.group(2), m.group(3))

    def enum(self, name):
        if name not in self.enums:
            return []
        return sorted({v for t, v in self.consts.values() if t == name and v})


def folder_of(path):
    for prefix, folder in PREFIXES.items():
        if path.startswith(prefix):
            return folder + path[len(prefix):]
    return None


def definition_folder(definition):
    parts = definition.split(".")
    if definition.startswith("io.k8s.api."):
        return "api/" + "/".join(parts[3:-1])
    if definition.startswith("io.k8s.apimachinery."):
        return "/".join(parts[2:-1])
    if definition.startswith(("io.k8s.apiextensions-apiserver.", "io.k8s.kube-aggregator.")):
        return "/".join(parts[2:-1])
    return None


def definition_name(folder, name):
    parts = folder.split("/")
    return "io.k8s." + ".".join(parts) + "." + name


class Go:
    """A resolved Go type: `go` as reflect prints it, `code` as facts.txt writes it, `kind` for omitempty."""
    def __init__(self, go, code, kind, enum=()):
        self.go, self.code, self.kind, self.enum = go, code, kind, list(enum)


def resolve(text, package, imports):
    text = text.strip()
    if text.startswith("*"):
        inner = resolve(text[1:], package, imports)
        return Go("*" + inner.go, inner.code, "pointer", inner.enum)
    if text == "[]byte":
        return Go("[]uint8", "by", "slice")
    if text.startswith("[]"):
        inner = resolve(text[2:], package, imports)
        return composite("[]" + inner.go, "[", inner, "slice", None)
    m = re.match(r"map\[([\w.]+)\](.*)", text)
    if m:
        key, inner = resolve(m.group(1), package, imports), resolve(m.group(2), package, imports)
        return composite("map[%s]%s" % (key.go, inner.go), "{", inner, "map", None)
    if text in ("interface{}", "any"):
        return Go("interface {}", "*", "interface")
    if text in GO_SCALARS:
        return Go(text, GO_SCALARS[text], "scalar")
    if "." in text:
        alias, name = text.split(".")
        folder = folder_of(imports.get(alias, ""))
        if folder is None:
            return Go(text, "s:" + text, "scalar")
    else:
        folder, name = package.folder, text
    return named(folder, name)


def composite(go, code, inner, kind, name):
    default = ("[]" if code == "[" else "map[string]") + actual(inner)
    shown = name or go
    head = "" if shown == default else "(%s)" % shown
    return Go(shown, head + code + inner.code, kind)


def actual(inner):
    """What the reader of facts.txt would print for the inner type (pointers lost)."""
    return "?" if inner.go.startswith("*") else inner.go


def named(folder, name):
    definition = definition_name(folder, name)
    package = Package.get(folder)
    go = "%s.%s" % (package.name, name)
    if definition in LEAF:
        code = LEAF[definition]
        return Go(go, code, "struct")
    kind, body, imports = package.types.get(name, ("missing", "", {}))
    if kind == "struct":
        return Go(go, "#" + definition, "struct")
    if kind == "missing" and definition in defs:
        return Go(go, "#" + definition, "struct")
    if kind == "missing":
        print("missing", folder, name, file=sys.stderr)
        return Go(go, "s:" + go, "scalar")
    if body.startswith("="):
        return resolve(body[1:].strip(), package, imports)
    inner = resolve(body, package, imports)
    if inner.code[0] in "[{(" :
        code = re.sub(r"^\([^)]*\)", "", inner.code)
        return Go(go, "(%s)%s" % (go, code), inner.kind)
    if inner.code.startswith("#"):
        return Go(go, inner.code, inner.kind)
    code = inner.code.split(":")[0] + ":" + go
    return Go(go, code, inner.kind, package.enum(name) or inner.enum)


def go_fields(folder, name):
    """JSON name -> (Go type, omitempty, omitzero, comment, embedded structs), inlined structs flattened."""
    package = Package.get(folder)
    kind, body, imports = package.types.get(name, ("missing", "", {}))
    if kind == "named":
        inner = resolve(body.lstrip("= "), package, imports)
        if inner.code.startswith("#"):
            d = inner.code[1:]
            return go_fields(definition_folder(d), d.split(".")[-1])
    if kind != "struct":
        return None
    out, comment = {}, []
    for line in body.split("\n"):
        stripped = line.strip()
        if stripped.startswith("//"):
            comment.append(stripped[2:].strip())
            continue
        m = re.match(r'^\s*(?:(\w+)\s+)?([\w.*\[\]{}]+)\s+`json:"([^"]*)"', line)
        if m:
            options = m.group(3).split(",")
            go = m.group(2)
            if "inline" in options or (m.group(1) is None and options[0] == ""):
                inner = resolve(go, package, imports)
                definition = inner.code.lstrip("#")
                got = go_fields(definition_folder(definition), definition.split(".")[-1])
                for field, facts in (got or {}).items():
                    out[field] = facts[:4] + (inner.go.split(".")[-1] + "." + facts[4],)
            elif options[0] != "-":
                out[options[0]] = (resolve(go, package, imports), "omitempty" in options, "omitzero" in options, comment, "")
        if stripped or not comment:
            comment = []
    return out


def ref_of(prop):
    return prop["$ref"].split("/")[-1] if "$ref" in prop else None


def schema_code(prop):
    """The type from the JSON schema alone, for definitions whose Go source is not at hand."""
    ref = ref_of(prop)
    if ref:
        return LEAF.get(ref, "#" + ref)
    kind = prop.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    form = prop.get("format")
    if kind == "array":
        return "[" + schema_code(prop["items"])
    if kind == "object" and "additionalProperties" in prop:
        return "{" + schema_code(prop["additionalProperties"])
    if kind == "string":
        return {"byte": "by", "date-time": "t"}.get(form, "s")
    if kind == "integer":
        return "i32" if form == "int32" else "i64"
    return {"number": "f64", "boolean": "b"}.get(kind, "*")


def refs_in(code):
    m = re.search(r"#([\w.-]+)$", code)
    return [m.group(1)] if m else []


def extensions(prop):
    out = []
    if prop.get("x-kubernetes-list-type"):
        out.append("l=" + prop["x-kubernetes-list-type"])
    if prop.get("x-kubernetes-list-map-keys"):
        out.append("k=" + ",".join(prop["x-kubernetes-list-map-keys"]))
    if prop.get("x-kubernetes-map-type"):
        out.append("t=" + prop["x-kubernetes-map-type"])
    if prop.get("x-kubernetes-patch-merge-key"):
        out.append("m=" + prop["x-kubernetes-patch-merge-key"])
    if prop.get("x-kubernetes-patch-strategy"):
        out.append("s=" + prop["x-kubernetes-patch-strategy"])
    return out


def default_of(go, comment, package):
    for line in comment:
        m = re.match(r"\+default=(.*)", line)
        if not m:
            continue
        text = m.group(1).strip()
        ref = re.match(r"ref\(([\w./]+)\)", text)
        if ref:
            value = package.consts.get(ref.group(1).split(".")[-1])
            if value is None:
                print("no constant", text, file=sys.stderr)
                continue
            value = value[1]
        else:
            value = json.loads(text)
        if value in ("", 0, False, {}) and not go.go.startswith("*"):
            return None
        return json.dumps(value, separators=(",", ":"))
    return None


def emit(definition, out, queue):
    schema = defs[definition]
    head = ["=", definition]
    if schema.get("x-kubernetes-map-type"):
        head.append("t=" + schema["x-kubernetes-map-type"])
    for union in schema.get("x-kubernetes-unions", []):
        pairs = ",".join("%s:%s" % kv for kv in sorted(union["fields-to-discriminateBy"].items()))
        head.append("u=%s;%s" % (union.get("discriminator", ""), pairs))
    for gvk in schema.get("x-kubernetes-group-version-kind", []):
        if len(schema["x-kubernetes-group-version-kind"]) == 1:
            head.append("g=%s/%s/%s" % (gvk["group"], gvk["version"], gvk["kind"]))
    out.append(" ".join(head))
    folder = definition_folder(definition)
    fields = go_fields(folder, definition.split(".")[-1]) if folder else None
    if fields is None:
        print("no Go source for", definition, file=sys.stderr)
    required = set(schema.get("required", []))
    for name, prop in schema.get("properties", {}).items():
        if (definition, name) in SKIPPED:
            continue
        words = [name]
        if fields and name in fields:
            go, omitempty, omitzero, comment, embedded = fields[name]
            words.append(go.code)
            if name in required:
                words.append("r")
            if omitzero or (omitempty and go.kind in ("scalar", "slice", "map")):
                words.append("o")
            elif not omitempty:
                words.append("p" if go.kind in ("pointer", "interface") else "a")
            elif go.kind == "struct":
                words.append("a")
            words += extensions(prop)
            if go.enum:
                words.append("e=" + "|".join(go.enum))
            default = default_of(go, comment, Package.get(folder))
            if default:
                words.append("d=" + default)
            if embedded and definition.split(".")[-1] + "." not in embedded and embedded != "TypeMeta.":
                words.append("i=" + embedded[:-1])
        else:
            if fields is not None:
                print("no Go field", definition, name, file=sys.stderr)
            words.append(schema_code(prop))
            if name in required:
                words.append("r")
            words += extensions(prop)
        assert not any(" " in w for w in words), words
        queue += refs_in(words[1])
        out.append(" ".join(words))


def main():
    by_gvk = {}
    for name, schema in defs.items():
        gvks = schema.get("x-kubernetes-group-version-kind", [])
        if len(gvks) == 1:
            by_gvk[(gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"])] = name
    queue = ["io.k8s.apimachinery.pkg.apis.meta.v1." + n for n in
             ("Status", "DeleteOptions", "WatchEvent", "Patch", "ObjectMeta", "ListMeta", "APIGroup", "APIGroupList", "APIResourceList", "APIVersions")]
    queue += ["io.k8s.api.policy.v1.Eviction", "io.k8s.api.autoscaling.v1.Scale", "io.k8s.api.authentication.v1.TokenRequest"]
    for line in open(os.path.join(here, "kinds.txt")):
        if line.startswith("#") or not line.strip():
            continue
        words = line.split()
        group, _, version = words[0].rpartition("/")
        queue.append(by_gvk[(group, version, words[1])])
        listed = by_gvk.get((group, version, words[1] + "List"))
        if listed:
            queue.append(listed)
    out, done = [], set()
    while queue:
        definition = queue.pop(0)
        if definition in done or definition in LEAF:
            continue
        done.add(definition)
        block = []
        emit(definition, block, queue)
        out.append(block)
    out.sort(key=lambda block: block[0])
    with open(os.path.join(here, "facts.txt"), "w") as f:
        f.write("# Written by facts.py; see there and build.rs. A line `= DEFINITION` and then its fields: name, type, facts.\n")
        for block in out:
            f.write("\n".join(block) + "\n")
    print(len(out), "definitions", file=sys.stderr)


main()
