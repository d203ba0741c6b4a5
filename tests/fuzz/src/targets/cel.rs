//! Expressions: parsed, checked, evaluated within their budget.

use oarlock_cel::policy::{self, Part, Wanted};
use oarlock_cel::{Activation, PER_CALL_LIMIT, Value as Cel, authorizer};
use serde_json::{Value, json};

use super::{both, json_bytes, nested, repeated, said, tree};
use crate::{Target, Verdict};

pub const TARGETS: &[Target] = &[Target {
    name: "cel",
    tree: true,
    seeds,
    hostile,
    words: &[
        "object",
        "oldObject",
        "request",
        "self",
        ".metadata",
        ".name",
        ".spec",
        ".size()",
        ".exists(x, x > 1)",
        ".all(k, k != '')",
        ".map(x, x + 1)",
        ".filter(x, true)",
        "has(object.a)",
        " && ",
        " || ",
        " == ",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        "!",
        "-",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'a'",
        "\"é\"",
        "r'\\d+'",
        "b'x'",
        "'''",
        "\"\"\"",
        "// c\n",
        "1",
        "1u",
        "1.5",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615u",
        "null",
        "true",
        "? ",
        " : ",
        "duration('1h')",
        "timestamp('2026-01-02T03:04:05Z')",
        ".matches('a+')",
        ".find('a')",
        ".findAll('.', 2)",
        ".substring(1, 2)",
        ".charAt(1)",
        ".indexOf('a', 1)",
        ".split(',')",
        ".replace('a', 'b')",
        ".join(',')",
        ".format([1, 'a', 2.5])",
        "'%s %d %.3f %x %e %b %X %o'",
        "quantity('1Gi')",
        ".add(1)",
        ".asInteger()",
        "url('https://a/b?c=d')",
        "ip('10.0.0.1')",
        "cidr('10.0.0.0/8')",
        ".containsIP('10.0.0.1')",
        "semver('1.2.3')",
        "sets.contains([1], [1])",
        ".distinct()",
        ".flatten()",
        ".sort()",
        ".reverse()",
        ".slice(0, 1)",
        "lists.range(100)",
        "optional.of(1)",
        ".?a",
        "[?0]",
        ".orValue(1)",
        "int(",
        "uint(",
        "double(",
        "string(",
        "bytes(",
        "type(",
        "dyn(",
        ".getFullYear('Europe/Berlin')",
        ".getHours()",
        "format.named('dns1123Label')",
        ".validate('a')",
        "cel.bind(x, 1, x)",
        "Object{a: 1}",
        "JSONPatch{op: 'add', path: '/a', value: 1}",
        "authorizer",
        "variables.v",
        "params",
    ],
    grow: None,
    run,
}];

fn object() -> Value {
    json!({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"n": 5, "f": 1.5, "list": [3, 1, 2], "names": ["x", "é", "日本"], "deep": {"a": {"b": [{"c": 1}]}}, "t": "2026-01-02T03:04:05Z", "q": "100m", "long": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}})
}

fn seeds() -> Vec<Vec<u8>> {
    let expressions = [
        "object.metadata.name == 'web' && has(object.spec.n)",
        "object.spec.list.all(x, x > 0) || object.spec.names.exists(n, n.startsWith('x'))",
        "object.spec.list.map(x, x * 2).filter(x, x % 3 == 0).size() == 1 ? 'a' : 'b'",
        "object.spec.names.map(n, n.substring(0, 1)).join('-').replace('x', 'éé', 1).upperAscii()",
        "'%s %d %.3f %x %e %b'.format([object.spec.names, 5, 1.5, 255, 1.5, 5])",
        "duration('1h30m') + timestamp('2026-01-02T03:04:05Z') > timestamp('2026-01-02T03:04:05+01:00')",
        "timestamp(object.spec.t).getFullYear('Europe/Berlin') - 9223372036854775807",
        "quantity(object.spec.q).add(quantity('1Gi')).isGreaterThan(quantity('1'))",
        "url('https://example.com:80/p?q=1').getHost() + string(ip('10.0.0.1').family())",
        "cidr('10.0.0.0/8').containsIP(ip('10.1.2.3')) && semver('1.2.3-a.1').major() == 1",
        "sets.equivalent([1, 2], [2, 1]) && [1, 2, 2].distinct() == [1, 2] && [[1], [2]].flatten().sum() == 3",
        "optional.of(object).?spec.?n.orValue(0) + {'a': 1}[?'b'].orValue(2)",
        "int(1.5) + int('7') + int(18446744073709551615u) - -9223372036854775808",
        "object.spec.long.matches('(a+)+$') && object.spec.long.findAll('a').size() > 1",
        "'abcé'.charAt(3) + 'abc'.indexOf('c', 1) + 'é,b'.split(',')[0].reverse()",
        "object.spec.list.sort().slice(0, 2).reverse().indexOf(1) + lists.range(10).size()",
        "Object{spec: Object.spec{n: 1}}",
        "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: {'x': dyn([1])}}]",
        "variables.v > 1 && params.a == 'b' && request.userInfo.groups.exists(g, g == 'a')",
        "authorizer.group('').resource('pods').namespace('a').check('get').allowed()",
        "object.spec.deep.a.b.map(k, v, k).exists_one(x, x == 0) || {'a': 1}.all(k, v, v > 0)",
        "b'\\xff'.size() + bytes('é').size() + string(b'abc').size()",
        "format.dns1123Label().value().validate('A')",
        "cel.bind(x, object.spec.list, x + x + x)",
        "1 / 0 + 9223372036854775807 * 2 - (-9223372036854775807 - 2) % -1",
        "r\"\\\" + \"\"\"a\"b\"\"\" + '''c'd''' + \"\\u00e9\\x41\\101\"",
    ];
    json_bytes(&expressions.map(|e| json!([e, object()])))
}

fn hostile(bytes: usize) -> Vec<Vec<u8>> {
    let bytes = bytes.min(99_000);
    let mut all = vec![
        nested("(", "1", ")", bytes),
        nested("[", "", "]", bytes),
        nested("{1:", "1", "}", bytes),
        nested("dyn(", "1", ")", bytes),
        repeated("!", bytes) + "true",
        repeated("-", bytes) + "1",
        "1".to_owned() + &repeated("+1", bytes),
        "true".to_owned() + &repeated("&&true", bytes),
        "true".to_owned() + &repeated("||true", bytes),
        repeated("true?1:", bytes) + "1",
        "object".to_owned() + &repeated(".a", bytes),
        "object".to_owned() + &repeated("[0]", bytes),
        "[1]".to_owned() + &repeated(".map(x,x)", bytes),
        "[1]".to_owned() + &nested(".map(x,[x]", "", ")", bytes),
        // Strings that a careless count of brackets takes for longer than they are.
        "r\"\\\"".to_owned() + &repeated("+'1'", bytes),
        "r'\\'".to_owned() + &repeated("+'1'", bytes),
        "\"\"\"\n\"\"\"".to_owned() + &repeated("+'1'", bytes),
        "'''a\n'''".to_owned() + &repeated("+'1'", bytes),
        "r'\\'+string(".to_owned() + &nested("(", "1", ")", bytes) + ")",
        "// '\n1".to_owned() + &repeated("+1", bytes),
        // Costs that grow with each level.
        "[0,1,2,3,4,5,6,7,8,9]".to_owned()
            + &repeated(".map(x,[0,1,2,3,4,5,6,7,8,9])", 140)
            + ".flatten()",
        nested("lists.range(1000).all(x,", "true", ")", 130),
        "lists.range(1000000).map(x, x).map(x, [x, x, x])".to_owned(),
        nested("cel.bind(x,", "object.spec.long", ",x+x)", 300),
        nested("cel.bind(x,", "[1,2]", ",x+x)", 400),
        "lists.range(10000).map(x, object.spec.long).join(',').replace('a', object.spec.long)"
            .to_owned(),
        "''.replace('', object.spec.long)".to_owned(),
        "'%.1000000000f'.format([1.5])".to_owned(),
        "'%s'.format([lists.range(100000)])".to_owned(),
        "object.spec.long.matches('((a{1,100}){1,100}){1,100}')".to_owned(),
        "object.spec.long.matches('(a?){60}(a){60}')".to_owned(),
        "lists.range(900).map(x, lists.range(900)).flatten().distinct().size() > 0".to_owned(),
        "lists.range(9223372036854775807)".to_owned(),
        "lists.range(-1)".to_owned(),
        "[lists.range(1000).map(x, lists.range(1000))].flatten(5)".to_owned(),
        "timestamp('9999-12-31T23:59:59Z') + duration('999999999999s')".to_owned(),
        "duration('9223372036s') + duration('9223372036s')".to_owned(),
        "'a'.charAt(9223372036854775807) + 'é'.substring(1) + 'é'.substring(-1)".to_owned(),
        "'aé'.indexOf('é', 9223372036854775807) + 'aé'.lastIndexOf('a', -1)".to_owned(),
        "double('1e400') > 0.0 && int(double('nan')) > 0".to_owned(),
        "int(-9223372036854775808.0) / -1 + -9223372036854775808 % -1".to_owned(),
        "quantity('9223372036854775807Ei').add(quantity('9223372036854775807Ei')).asInteger()"
            .to_owned(),
        "quantity('1').sub(-9223372036854775807 - 1)".to_owned(),
        "[9223372036854775807, 1].sum()".to_owned(),
        "[duration('9223372036s'), duration('9223372036s')].sum()".to_owned(),
        "-(-9223372036854775807 - 1)".to_owned(),
        "0u - 1u".to_owned(),
    ];
    all.push(format!("[{}1]", repeated("1,", bytes)));
    all.push(format!(
        "{{{}0:1}}",
        (0..bytes / 12)
            .map(|n| format!("{n}:1,"))
            .collect::<String>()
    ));
    all.push(format!("'{}'", repeated("\\u00e9", bytes)));
    all.push(format!(
        "'{}'.matches('{}')",
        repeated("a", bytes / 2),
        repeated("a?", bytes / 2)
    ));
    all.iter()
        .map(|e| json!([e, object()]).to_string().into_bytes())
        .collect()
}

#[derive(Debug)]
struct Nobody;

impl oarlock_cel::Authorizer for Nobody {
    fn check(&self, _: &oarlock_cel::Attributes) -> oarlock_cel::Decision {
        oarlock_cel::Decision {
            allowed: false,
            reason: String::new(),
            error: None,
        }
    }

    fn of_service_account<'a>(
        &'a self,
        _: &str,
        _: &str,
    ) -> std::rc::Rc<dyn oarlock_cel::Authorizer + 'a> {
        std::rc::Rc::new(Self)
    }
}

fn run(input: &[u8]) -> Verdict {
    let Some(Value::Array(parts)) = tree(input) else {
        return Ok(0);
    };
    let (Some(Value::String(expression)), Some(object)) = (parts.first(), parts.get(1)) else {
        return Ok(1);
    };
    let variables = Value::Array(vec![json!({"name": "v", "expression": "object.spec.n"})]);
    let spec = json!({"paramKind": {"kind": "X"}, "variables": variables, "mutations": []});
    let program = match policy::compile_part(&spec, Part::Validation, expression) {
        Ok(program) => Ok(program),
        Err(why) if why.starts_with("must evaluate") => {
            let env = policy::with_mutations(policy::with_variables(policy::env(true)));
            policy::compile(expression, &env, Wanted::Any)
        }
        Err(why) => Err(why),
    };
    let mut out = match policy::compile_device(expression) {
        Ok(_) => 7,
        Err(why) => said(&why),
    };
    let program = match program {
        Ok(program) => program,
        Err(why) => return Ok(both(out, said(&why))),
    };
    let mut names = Activation::new();
    for name in ["object", "oldObject", "params"] {
        names.set(name, Cel::json(object));
    }
    names.set("authorizer", authorizer(std::rc::Rc::new(Nobody)));
    match program.eval_limited(&names, PER_CALL_LIMIT) {
        Ok(value) => {
            out = both(out, said(&format!("{:?}", value.runtime_type())));
            match value.to_json() {
                Ok(json) => out = both(out, super::outline(&json)),
                Err(error) => out = both(out, said(&error.to_string())),
            }
        }
        Err(error) => out = both(out, said(&policy::failed(expression, &error))),
    }
    // Something more than a call may cost may be spent by the last step, but not without bound.
    if names.cost() > 100 * PER_CALL_LIMIT {
        out = both(out, 99);
    }
    Ok(out)
}
