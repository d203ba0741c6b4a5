#!/usr/bin/env python3
"""Writes proto.txt: field numbers and types of Kubernetes' protobuf messages, as facts.

proto.py DEFINITIONS_JSON PROTO_FILE...   (generated.proto of k8s.io/api and k8s.io/apimachinery)
`= DEFINITION` opens a message, a line below it is `NUMBER NAME TYPE`; TYPE is s(tring), y (bytes), b(ool), i(nteger),
d(ouble) or a definition; before it `*` repeated, `%` a map from strings, `^` fields that JSON has in the outer object.
"""
import json
import re
import sys

SCALARS = {"string": "s", "bytes": "y", "bool": "b", "int32": "i", "int64": "i", "uint32": "i", "uint64": "i", "double": "d"}
definitions = json.load(open(sys.argv[1]))
definitions = definitions.get("$defs") or definitions.get("definitions")
messages = {}
for path in sys.argv[2:]:
    text = re.sub(r"//[^\n]*", "", open(path).read())
    package = re.search(r"^package ([\w.]+);", text, re.M).group(1)
    for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.M | re.S):
        fields = []
        for prefix, kind, field, number in re.findall(r"(optional|repeated|)\s*(map<[^>]+>|[\w.]+) (\w+) = (\d+);", body):
            fields.append((int(number), field, prefix, kind))
        messages[f"{package}.{name}"] = (package, fields)

def full(package, kind):
    name = kind.lstrip(".") if "." in kind else f"{package}.{kind}"
    return name

def ours(name):
    return name.replace("k8s.io.", "io.k8s.", 1)

def code(package, kind):
    return SCALARS.get(kind) or ours(full(package, kind))

for name, (package, fields) in sorted(messages.items()):
    properties = definitions.get(ours(name), {}).get("properties")
    if name.endswith("List"):
        continue
    by_lower = {p.lower(): p for p in properties or {}}
    print("=", ours(name))
    for number, field, prefix, kind in sorted(fields):
        field = by_lower.get(field.lower(), field)
        if kind.startswith("map<"):
            value = kind[4:-1].split(",")[1].strip()
            text = "%" + code(package, value)
        else:
            text = code(package, kind)
            if kind.endswith("ExtraValue"):
                text = "*s"
            if prefix == "repeated":
                text = "*" + text
            elif properties is not None and field not in properties:
                if text not in SCALARS.values():
                    text = "^" + text
                elif field not in ("Raw", "raw", "ignored"):
                    print(f"{ours(name)}: {field} is no JSON field", file=sys.stderr)
        print(number, field, text)
