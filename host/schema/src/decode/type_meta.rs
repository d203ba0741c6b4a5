//! `apiVersion` and `kind` of a body of unknown kind, with the texts that Kubernetes has for bodies without them.

use super::DecodeError;
use super::scan::Text;

/// What a body says it is. Empty: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

/// Go prints the type that it looks for; an interface fact.
const GO_TYPE: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Reads the whole text (its syntax is checked) for `apiVersion` and `kind`. The caller puts
/// `couldn't get version/kind; json parse error: ` before an error.
pub fn type_meta(json: &[u8]) -> Result<TypeMeta, DecodeError> {
    let text = String::from_utf8_lossy(json);
    let mut text = Text::new(&text);
    let mut found = TypeMeta::default();
    let mut error = None;
    read(&mut text, &mut found, &mut error).map_err(|e| DecodeError::Syntax(e.0))?;
    match error {
        Some(error) => Err(DecodeError::Type(error)),
        None => Ok(found),
    }
}

fn what(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        _ => "number",
    }
}

fn read(text: &mut Text<'_>, found: &mut TypeMeta, error: &mut Option<String>) -> super::Scan<()> {
    let first = text.begin_value()?;
    if first != b'{' {
        text.skip()?;
        if first != b'n' {
            *error = Some(format!(
                "json: cannot unmarshal {} into Go value of type {GO_TYPE}",
                what(first)
            ));
        }
        return text.end();
    }
    text.open(b'{')?;
    let mut first_key = true;
    while let Some(key) = text.next_key(&mut first_key)? {
        let slot = match &*key {
            "apiVersion" => &mut found.api_version,
            "kind" => &mut found.kind,
            _ => {
                text.skip()?;
                continue;
            }
        };
        match text.begin_value()? {
            b'"' => *slot = text.string()?.into_owned(),
            b'n' => text.skip()?,
            other => {
                text.skip()?;
                error.get_or_insert_with(|| {
                    format!(
                        "json: cannot unmarshal {} into Go struct field .{key} of type string",
                        what(other)
                    )
                });
            }
        }
    }
    text.end()
}
