//! Expressions and what becomes of them.

use serde_json::{Value as Json, json};

use crate::{Activation, Env, Program, Shape, Type, Value};

/// The value of an expression as JSON, or the error's text.
fn eval(text: &str, object: &Json) -> String {
    let env = Env::new().with_variable("object", Type::Dyn);
    let program = match Program::compile(text, &env) {
        Ok(program) => program,
        Err(errors) => return errors.to_string(),
    };
    let names = Activation::new().with("object", Value::json(object));
    match program.eval(&names).and_then(|value| value.to_json()) {
        Ok(json) => json.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn all_true(expressions: &[&str]) {
    let object = json!({
        "a": 1, "text": "héllo", "list": [3, 1, 2], "map": {"x": "1", "y": "2"}, "nothing": null, "f": 1.5,
    });
    for text in expressions {
        assert_eq!(eval(text, &object), "true", "{text}");
    }
}

#[test]
fn the_language() {
    all_true(&[
        "1 + 2 * 3 == 7",
        "object.a == 1 && object.f == 1.5",
        "object.text.size() == 5",
        "object.list.exists(x, x == 3) && object.list.all(x, x > 0)",
        "object.list.exists_one(x, x == 3)",
        "object.list.map(x, x * 2) == [6, 2, 4]",
        "object.list.filter(x, x > 1) == [3, 2]",
        "object.list.map(x, x > 1, x + 1) == [4, 3]",
        "object.map.all(k, k in ['x', 'y'])",
        "has(object.a) && !has(object.b)",
        "'x' in object.map && 'z' in object.map == false",
        "object.b == 1 || object.a == 1",
        "object.nothing == null",
        "dyn(1) == 1.0 && 1u < 2 && 2.5 > 2",
        "type(1) == int && type('a') == string && type([]) == list",
        "dyn([dyn(1), 'a'][0]) == 1",
        "{'a': 1}.a == 1 && {'a': 1}['a'] == 1",
        "(true ? 1 : 2) == 1",
        "timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020",
        "duration('1h30m') == duration('90m') && duration('90s').getMinutes() == 1",
        "timestamp('2020-01-01T00:00:00Z') + duration('1h') > timestamp('2020-01-01T00:30:00Z')",
        "string(duration('90s')) == '90s' && int('7') == 7 && double('1.5') == 1.5",
        "b'abc' == bytes('abc') && size(b'abc') == 3",
        "'abc'.matches('^a.c$') && 'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')",
        "7 % 3 == 1 && -7 / 2 == -3",
        "[1, 2] + [3] == [1, 2, 3]",
        "{'a': [1]} == {'a': [1]}",
        "'abc' != 'abd' && 'abc' < 'abd'",
    ]);
}

#[test]
fn libraries() {
    all_true(&[
        "quantity('1Gi').isGreaterThan(quantity('1Mi')) && isQuantity('1.5') && !isQuantity('zz')",
        "quantity('50k').add(quantity('20k')) == quantity('70k')",
        "quantity('50000000G').asApproximateFloat() == 5e16 && quantity('-1').sign() == -1",
        "ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('1.2.3')",
        "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.7') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.7'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8')",
        "string(cidr('10.0.0.1/8').ip()) == '10.0.0.1' && cidr('::1/128').prefixLength() == 128",
        "url('https://example.com:80/a?k=v&k=w').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://a/b?k=v').getQuery() == {'k': ['v']}",
        "url('https://a/with space/').getEscapedPath() == '/with%20space/' && !isURL('../relative')",
        "semver('1.2.3').isLessThan(semver('1.2.4')) && semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1",
        "isSemver('v1.0', true) && !isSemver('v1.0') && semver('0.1.2').patch() == 2",
        "'abc 123'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']",
        "[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && ['a', 'b'].max() == 'b'",
        "[1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2",
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 1, 2].distinct() == [1, 2] && [1, 2].reverse() == [2, 1]",
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [1, 2, 3].slice(1, 3) == [2, 3] && lists.range(3) == [0, 1, 2]",
        "[{'n': 2}, {'n': 1}].sortBy(e, e.n)[0].n == 1",
        "'%s is %d, %.2f, %x'.format([dyn('a'), 7, 1.5, 255]) == 'a is 7, 1.50, ff'",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'abc'.substring(1, 2) == 'b'",
        "'tacocat'.indexOf('ac') == 1 && 'tacocat'.lastIndexOf('a') == 5 && 'hello'.charAt(4) == 'o'",
        "' x '.trim() == 'x' && 'aB'.upperAscii() == 'AB' && 'aa'.replace('a', 'b', 1) == 'ba'",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])",
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('_').hasValue()",
        "format.named('uuid').hasValue() && !format.named('x').hasValue()",
        "object.?b.orValue(7) == 7 && object.?a.value() == 1 && object[?'zz'].hasValue() == false",
        "optional.of(1).optMap(x, x + 1).value() == 2 && optional.none().or(optional.of(3)).value() == 3",
        "[1, ?object.?b] == [1] && {?'k': object.?a} == {'k': 1}",
        "object.list.all(i, v, i >= 0 && v > 0) && object.map.exists(k, v, k == 'x' && v == '1')",
        "object.list.transformList(i, v, i + v) == [3, 2, 4]",
        "object.map.transformMap(k, v, v + '!') == {'x': '1!', 'y': '2!'}",
        "object.map.transformMapEntry(k, v, {v: k}) == {'1': 'x', '2': 'y'}",
    ]);
}

#[test]
fn errors_while_running() {
    let object = json!({"data": {"b": "x"}, "list": [1]});
    for (text, wanted) in [
        ("object.data.a.size() < 5", "error: no such key: a"),
        ("object.list[3] == 1", "error: index out of bounds: 3"),
        ("1 / (object.list[0] - 1) == 0", "error: division by zero"),
        (
            "9223372036854775807 + object.list[0] > 0",
            "error: integer overflow",
        ),
        ("object.data + 1 == 2", "error: no such overload"),
        (
            "object.list.all(x, object.list.all(y, object.nope))",
            "error: no such key: nope",
        ),
        (
            "int('x') == 1",
            "error: type conversion error from 'string' to 'int'",
        ),
        (
            "lists.range(1000000).all(x, lists.range(1000000).all(y, x <= y))",
            "error: operation cancelled: actual cost limit exceeded",
        ),
    ] {
        assert_eq!(eval(text, &object), wanted, "{text}");
    }
}

#[test]
fn complaints_of_the_parser() {
    for (text, wanted) in [
        (
            "",
            "ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        (
            "..",
            "ERROR: <input>:1:2: Syntax error: no viable alternative at input '..'\n | ..\n | .^",
        ),
        (
            "object.",
            "ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'\n | object.\n | .......^",
        ),
        (
            "object.a != 'x'x",
            "ERROR: <input>:1:16: Syntax error: extraneous input 'x' expecting <EOF>\n | object.a != 'x'x\n | ...............^",
        ),
        (
            "has(object)",
            "ERROR: <input>:1:5: invalid argument to has() macro\n | has(object)\n | ....^",
        ),
    ] {
        assert_eq!(eval(text, &Json::Null), wanted, "{text}");
    }
}

#[test]
fn complaints_of_the_checker() {
    let framed = |column: usize, message: &str, text: &str| {
        let dots = ".".repeat(column - 1);
        format!("ERROR: <input>:1:{column}: {message}\n | {text}\n | {dots}^")
    };
    for (text, column, wanted) in [
        (
            "lead",
            1,
            "undeclared reference to 'lead' (in container '')",
        ),
        (
            "1 + 'a'",
            3,
            "found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "'a'.size(1)",
            9,
            "found no matching overload for 'size' applied to 'string.(int)'",
        ),
        (
            "nope(1)",
            5,
            "undeclared reference to 'nope' (in container '')",
        ),
        (
            "[1, 'a'] == [1]",
            5,
            "expected type 'int' but found 'string'",
        ),
        ("1 && true", 1, "expected type 'bool' but found 'int'"),
        ("'a'.b", 4, "type 'string' does not support field selection"),
        (
            "1.all(x, true)",
            1,
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "'a' == null",
            5,
            "found no matching overload for '_==_' applied to '(string, null)'",
        ),
    ] {
        assert_eq!(
            eval(text, &Json::Null),
            framed(column, wanted, text),
            "{text}"
        );
    }
    let two = eval("lead/b", &Json::Null);
    assert!(
        two.contains(":1:1: undeclared reference to 'lead'")
            && two.contains("\nERROR: <input>:1:6: undeclared reference to 'b'")
    );
    let wide = eval("'é' + 1", &Json::Null);
    assert!(
        wide.starts_with("ERROR: <input>:1:5: found no matching"),
        "{wide}"
    );
}

#[test]
fn schemas_give_types() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer"},
        "when": {"type": "string", "format": "date-time"},
        "dashed-name": {"type": "string"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": true},
        "number": {"type": "number"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let shape = Shape::of(&schema, "selfType", false).unwrap();
    let env = Env::new().with_variable("self", shape.ty.clone());
    let object = json!({
        "a": 1, "when": "2020-01-01T00:00:00Z", "dashed-name": "x", "set": ["a", "b"], "either": "5%", "number": 3,
        "map": {"k-1": "v"},
    });
    for text in [
        "self.a == 1",
        "self.when < timestamp('2021-01-01T00:00:00Z')",
        "self.dashed__dash__name == 'x'",
        "self.set == ['b', 'a'] && self.set + ['a', 'c'] == ['a', 'b', 'c']",
        "type(self.either) == string && self.either.endsWith('%')",
        "type(self.number) == double && self.number == 3.0",
        "self.map['k-1'] == 'v' && self.map.all(k, k == 'k-1')",
        "has(self.a)",
    ] {
        let program = Program::compile(text, &env).unwrap_or_else(|e| panic!("{text}: {e}"));
        let names = Activation::new().with("self", Value::shaped(&object, &shape));
        assert_eq!(
            program.eval(&names).unwrap().as_bool(),
            Some(true),
            "{text}"
        );
    }
    let error = Program::compile("self.b == 1", &env)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "ERROR: <input>:1:5: undefined field 'b'\n | self.b == 1\n | ....^"
    );
    let error = Program::compile("self.a == 'x'", &env)
        .unwrap_err()
        .to_string();
    assert!(error.contains("found no matching overload for '_==_' applied to '(int, string)'"));
    assert_eq!(
        Program::compile("self.a", &env)
            .unwrap()
            .result()
            .to_string(),
        "int"
    );
}

#[test]
fn deep_expressions_are_refused() {
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(eval(&deep, &Json::Null).contains("recursion limit"));
    let chain = vec!["1"; 5000].join(" + ");
    assert!(eval(&chain, &Json::Null).contains("recursion limit"));
    let fine = vec!["true"; 200].join(" && ");
    assert_eq!(eval(&fine, &Json::Null), "true");
}

mod rules {
    use serde_json::{Value as Json, json};

    use crate::rules::{Rules, check_schema};

    #[track_caller]
    fn check(schema: &Json, object: &Json, old: Option<&Json>, expect: &[&str]) {
        let verdict = Rules::of(schema).check(object, old);
        let texts: Vec<String> = verdict
            .causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        assert_eq!(texts, expect);
    }

    fn spec(of: Json) -> Json {
        json!({"type": "object", "properties": {"spec": of}})
    }

    #[test]
    fn failures_are_told_as_upstream_does() {
        let schema = spec(json!({"type": "object", "properties": {
            "s": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [{"rule": "self.startsWith('x')"}]},
            "m": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "string", "maxLength": 9},
                "x-kubernetes-validations": [{"rule": "self.all(k, k != 'bad')"}]},
            "a": {"type": "integer"},
            "l": {"type": "array", "maxItems": 3, "items": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self > 0", "messageExpression": "'got ' + string(self)"}]}},
        }, "x-kubernetes-validations": [
            {"rule": "has(self.a)", "reason": "FieldValueRequired", "fieldPath": ".a"},
            {"rule": "!has(self.l) || self.l[0] < 100", "message": "too much"},
        ]}));
        assert!(check_schema(&schema, "schema", &|_| false).is_empty());
        check(
            &schema,
            &json!({"spec": {"s": "ya"}}),
            None,
            &[
                "spec.a: Required value: failed rule: has(self.a)",
                "spec.s: Invalid value: \"ya\": failed rule: self.startsWith('x')",
            ],
        );
        check(
            &schema,
            &json!({"spec": {"a": 1, "m": {"bad": "x"}, "l": [100, -1]}}),
            None,
            &[
                "spec: Invalid value: too much",
                "spec.l[1]: Invalid value: -1: got -1",
                "spec.m: Invalid value: failed rule: self.all(k, k != 'bad')",
            ],
        );
        check(
            &schema,
            &json!({"spec": {"a": 1, "l": []}}),
            None,
            &["spec: Invalid value: index out of bounds: 0 evaluating rule: too much"],
        );
        check(&schema, &json!({"spec": {"a": 1, "s": "x"}}), None, &[]);
    }

    #[test]
    fn transitions() {
        let schema = spec(json!({"type": "object", "properties": {
            "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]},
            "o": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || self > oldSelf.value()", "optionalOldSelf": true}]},
        }}));
        let (old, new) = (
            json!({"spec": {"v": 4, "o": 3}}),
            json!({"spec": {"v": 6, "o": 1}}),
        );
        check(&schema, &new, None, &[]);
        check(
            &schema,
            &new,
            Some(&old),
            &[
                "spec.o: Invalid value: 1: failed rule: !oldSelf.hasValue() || self > oldSelf.value()",
                "spec.v: Invalid value: 6: immutable",
            ],
        );
        check(&schema, &json!({}), Some(&old), &[]);
    }

    #[test]
    fn what_was_wrong_before_is_a_warning() {
        let schema = spec(json!({"type": "object", "properties": {
            "s": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self == 'x'"}]},
        }}));
        let old = json!({"spec": {"s": "y"}});
        let new = json!({"spec": {"s": "y"}, "other": 1});
        let verdict = Rules::of(&schema).check(&new, Some(&old));
        assert!(verdict.causes.is_empty());
        assert_eq!(
            verdict.warnings,
            ["spec.s: Invalid value: \"y\": failed rule: self == 'x'"]
        );
    }

    #[test]
    fn schemas_with_wrong_rules() {
        #[track_caller]
        fn wrong(schema: &Json, expect: &[&str]) {
            let texts: Vec<String> = check_schema(schema, "s", &|_| false)
                .iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect();
            assert_eq!(texts, expect);
        }
        let with = |rules: Json| {
            spec(
                json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": rules}),
            )
        };
        wrong(
            &with(json!([{"rule": "self.a"}])),
            &[
                "s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.a\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
            ],
        );
        let strings = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.all(x, x.all(y, self.exists(z, y in z)))"}]});
        let texts = check_schema(
            &spec(json!({"type": "object", "properties": {"l": strings}})),
            "s",
            &|_| false,
        );
        assert!(
            texts[0].message.starts_with(
                "Forbidden: estimated rule cost exceeds budget by factor of more than 100x"
            ),
            "{texts:?}"
        );
        let list = |rule: &str| json!({"type": "array", "maxItems": 9, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": rule}]}});
        wrong(
            &spec(json!({"type": "object", "properties": {"l": list("self == oldSelf")}})),
            &[
                "s.properties[spec].properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec].properties[l]",
            ],
        );
    }
}

mod policies {
    use serde_json::json;

    use crate::policy::{Wanted, compile, env, matches, with_mutations, with_variables};
    use crate::{Activation, Program, Type, Value};

    #[test]
    fn results_must_be_of_a_type() {
        let of = |text: &str, wanted| compile(text, &env(false), wanted).err().unwrap_or_default();
        assert_eq!(of("1", Wanted::Bool), "must evaluate to bool but got int");
        assert_eq!(
            of("object.a", Wanted::Text),
            "must evaluate to string but got dyn"
        );
        assert_eq!(
            of("1", Wanted::TextOrNull),
            "must evaluate to one of [string null_type]"
        );
        assert_eq!(of("null", Wanted::TextOrNull), "");
        assert!(
            of("params.a == 1", Wanted::Bool)
                .contains("undeclared reference to 'params' (in container '')")
        );
        assert!(of("request.nope == 1", Wanted::Bool).contains("undefined field 'nope'"));
        assert_eq!(
            of(
                "request.userInfo.groups.exists(g, g == 'x') && namespaceObject.metadata.labels['a'] == 'b'",
                Wanted::Bool
            ),
            ""
        );
        assert_eq!(
            of(
                "authorizer.group('').resource('pods').check('get').allowed()",
                Wanted::Bool
            ),
            ""
        );
        assert_eq!(
            of(
                "authorizer.requestResource.check('get').allowed()",
                Wanted::Bool
            ),
            ""
        );
    }

    #[test]
    fn devices() {
        let of = |text: &str| {
            crate::policy::compile_device(text)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(
            of("device.attributes['d.example.com'].model == 'x' && device.driver == 'd'"),
            ""
        );
        assert_eq!(
            of("device.capacity['d'].memory.isGreaterThan(quantity('1Gi'))"),
            ""
        );
        assert_eq!(of("device.attributes['d'].flag"), "");
        assert_eq!(
            of("1"),
            "must evaluate to bool or the unknown type, not int"
        );
        assert!(of("device.nope").contains("undefined field 'nope'"));
    }

    #[test]
    fn parts_of_policies() {
        use crate::policy::{Part, compile_part};
        let wrong = |spec: serde_json::Value, part, text: &str| {
            compile_part(&spec, part, text).err().unwrap_or_default()
        };
        let spec =
            || json!({"variables": [{"name": "n", "expression": "'x'"}, {"expression": "1"}]});
        assert_eq!(
            wrong(spec(), Part::Validation, "variables.n.size() < 3"),
            ""
        );
        assert_eq!(
            wrong(json!({}), Part::Validation, "variables.n.size() < 30"),
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')\n | variables.n.size() < 30\n | ^"
        );
        assert!(
            wrong(spec(), Part::Validation, "variables.m == 1")
                .contains(":1:10: undefined field 'm'")
        );
        assert!(wrong(spec(), Part::Variable(0), "variables.n").contains("undefined field 'n'"));
        assert_eq!(wrong(spec(), Part::Variable(1), "variables.n"), "");
        assert_eq!(
            wrong(spec(), Part::Message, "1"),
            "must evaluate to string but got int"
        );
        assert_eq!(
            wrong(json!(null), Part::MatchCondition, "request.name == 'x'"),
            ""
        );
        let mutating = json!({"mutations": []});
        let patch = "[JSONPatch{op: \"add\", path: \"/metadata/labels/x\", value: variables.x}]";
        assert!(
            wrong(mutating.clone(), Part::JsonPatch, patch)
                .contains(":1:58: undeclared reference to 'variables'")
        );
        assert_eq!(
            wrong(
                mutating,
                Part::ApplyConfiguration,
                "Object{spec: Object.spec{replicas: 1}}"
            ),
            ""
        );
    }

    #[test]
    fn variables_are_evaluated_when_asked_for() {
        let mut env = with_variables(env(false));
        let first = compile("object.n + 1", &env, Wanted::Any).unwrap();
        env.add_field("variables", "first", first.result().clone());
        let broken = compile("object.nope", &env, Wanted::Any).unwrap();
        env.add_field("variables", "broken", broken.result().clone());
        let variables = [("first".to_owned(), first), ("broken".to_owned(), broken)];
        let program = compile(
            "variables.first == 2 && has(variables.broken)",
            &env,
            Wanted::Bool,
        )
        .unwrap();
        let wrong = compile("variables.second == 2", &env, Wanted::Bool).unwrap_err();
        assert!(
            wrong.starts_with("compilation failed: ERROR: <input>:1:10: undefined field 'second'")
        );
        let object = json!({"n": 1});
        let names = Activation::new()
            .with("object", Value::json(&object))
            .with_variables(&variables);
        assert_eq!(program.eval(&names).unwrap().as_bool(), Some(true));
    }

    #[test]
    fn mutations() {
        let env = with_mutations(env(false));
        let text = "has(object.a) ? Object{metadata: Object.metadata{labels: {'mark': object.a}}} : Object{}";
        let program = compile(text, &env, Wanted::Object).unwrap();
        let patch = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'v'}]";
        let patch = compile(patch, &env, Wanted::JsonPatch).unwrap();
        let object = json!({"a": "x"});
        let names = Activation::new().with("object", Value::json(&object));
        let made = program.eval(&names).unwrap().to_json().unwrap();
        assert_eq!(made, json!({"metadata": {"labels": {"mark": "x"}}}));
        let made = patch.eval(&names).unwrap().to_json().unwrap();
        assert_eq!(
            made,
            json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "v"}])
        );
        let wrong = compile("JSONPatch{nope: 1}", &env, Wanted::Any).unwrap_err();
        assert!(wrong.contains("undefined field 'nope'"), "{wrong}");
    }

    #[test]
    fn conditions() {
        let env = env(false);
        let program = |text: &str| {
            Program::compile(text, &env.clone().with_variable("x", Type::Dyn)).unwrap()
        };
        let (yes, no, broken) = (
            program("true"),
            program("false"),
            program("object.nope == 1"),
        );
        let object = json!({});
        let names = Activation::new().with("object", Value::json(&object));
        assert_eq!(matches([&yes], &names, false), Ok(true));
        assert_eq!(matches([&broken, &no], &names, false), Ok(false));
        assert_eq!(matches([&broken], &names, true), Ok(false));
        let wrong = "expression 'object.nope == 1' resulted in error: no such key: nope";
        assert_eq!(
            matches([&yes, &broken], &names, false),
            Err(wrong.to_owned())
        );
    }
}

/// No source text makes the compiler panic, overflow its stack or run away.
mod any_text {
    use std::time::{Duration, Instant};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test's deadline")]
    fn compile(text: &str) -> Result<Program, String> {
        let env = Env::new().with_variable("object", Type::Dyn);
        let began = Instant::now();
        let made = Program::compile(text, &env).map_err(|e| e.to_string());
        let start: String = text.chars().take(40).collect();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{start} took {:?}",
            began.elapsed()
        );
        made
    }

    #[test]
    fn deep_nesting_is_refused_or_compiled() {
        let around = |open: &str, inner: &str, close: &str, n: usize| {
            format!("{}{inner}{}", open.repeat(n), close.repeat(n))
        };
        for n in [10, 100, 1_000, 10_000] {
            let _ = compile(&around("(", "1", ")", n));
            let _ = compile(&around("[", "", "]", n));
            let _ = compile(&around("{1:", "1", "}", n));
            let _ = compile(&around("[", "", "", n));
            let _ = compile(&around("size(", "''", ")", n));
            let _ = compile(&around("!", "true", "", n));
            let _ = compile(&around("-", "1", "", n));
            let _ = compile(&around("true ? 1 : ", "1", "", n));
            let _ = compile(&around("object", ".a", "", n));
            let _ = compile(&around("", "object", ".a", n));
            let _ = compile(&around("", "object", "[0]", n));
            let _ = compile(&around("", "1", " + 1", n));
            let _ = compile(&around("", "true", " && true", n));
            let _ = compile(&around("[1].map(x, ", "1", ")", n));
            let _ = compile(&around("r'(", "", ")'", n));
        }
    }

    #[test]
    fn huge_texts_and_literals_are_refused_or_compiled() {
        assert!(compile(&format!("'{}' != ''", "x".repeat(90_000))).is_ok());
        let wrong = compile(&format!("'{}'", "x".repeat(100_000))).unwrap_err();
        assert!(
            wrong.contains("expression code point size exceeds limit: size: 100002, limit 100000")
        );
        for text in [
            "9".repeat(5_000),
            format!("0x{}", "f".repeat(5_000)),
            format!("1e{}", "9".repeat(50)),
            format!("[{}]", "1,".repeat(10_000)),
            "\\".repeat(1_000),
            "'\\".to_owned(),
            "\u{0}\u{feff}\u{10ffff}".to_owned(),
        ] {
            let _ = compile(&text);
        }
    }

    /// Texts put together of words of the language by a generator of fixed seed.
    #[test]
    fn word_salad_is_refused_or_compiled() {
        const WORDS: [&str; 48] = [
            "object",
            ".a",
            ".?a",
            "[",
            "]",
            "[?",
            "(",
            ")",
            "{",
            "}",
            "?",
            ":",
            ",",
            "+",
            "-",
            "*",
            "/",
            "%",
            "==",
            "!=",
            "<",
            "in ",
            "&&",
            "||",
            "!",
            "1",
            "2u",
            "1.5",
            "0x1",
            "'s'",
            "b'\\xff'",
            "r'\\'",
            "\"\"\"",
            "null",
            "true",
            ".map(x, x)",
            ".all(i, v, v)",
            ".optMap(x, x)",
            ".sortBy(x, x)",
            ".transformMap(k, v, v)",
            "has(",
            "optional.of(",
            "Object{",
            "x",
            "é",
            "`a-b`",
            "//c\n",
            "\\",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let mut compiled = 0;
        for _ in 0..3_000 {
            let length = 1 + next(10);
            let text: String = (0..length).map(|_| WORDS[next(WORDS.len())]).collect();
            compiled += usize::from(compile(&text).is_ok());
        }
        assert!(compiled > 10, "some of them make sense: {compiled}");
    }
}

#[test]
fn strings_hide_no_depth() {
    let long = "+'1'".repeat(20_000);
    for head in [
        r#"r"\""#,
        r"r'\'",
        r"R'\'",
        "\"\"\"\n\"\"\"",
        "\"\"\"a\"\"\"",
        "'''a\n'''",
        "// '''\n''",
        r"'\''",
    ] {
        let compiled = Program::compile(&format!("{head}{long}"), &Env::new());
        let errors = compiled.map(|_| ()).unwrap_err().to_string();
        let wanted = "expression recursion limit exceeded: 250";
        assert!(errors.contains(wanted), "{head}: {errors:.200}");
    }
    all_true(&[
        r#"r"\" + "((((" + '''"(''' == "\\((((\"(" "#,
        "size('((((') == 4 // ((((( '''",
    ]);
}

#[test]
fn patterns_of_classes_are_not_compiled() {
    let object = json!({"p": "\\pL".repeat(50_000)});
    let told = eval("'a'.matches(object.p)", &object);
    assert!(
        told.starts_with("error: error parsing regexp: expression too large"),
        "{told:.100}"
    );
}

#[test]
fn texts_do_not_grow_without_bound() {
    let object = json!({"long": "a".repeat(3000)});
    for text in [
        "object.long.replace('', object.long).replace('', object.long)",
        "[1, 2, 3, 4].map(x, object.long.replace('', object.long)).join('')",
        "'%s'.format([[1, 2, 3, 4].map(x, object.long.replace('', object.long))])",
    ] {
        assert!(eval(text, &object).starts_with("error: "), "{text}");
    }
    let told = eval("'%.100000f'.format([1.5])", &object);
    assert!(told.contains("precision"), "{told}");
}
