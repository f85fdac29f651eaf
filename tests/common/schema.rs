//! Whether a value is what the description of the HTTP interface says. Knows the keywords that the description uses: a
//! schema with another one is an error. Stricter than JSON Schema: so is a member that no schema names, unless a schema
//! says that an object may have any.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::http::Response;

/// `docs/openapi.json`
pub struct Description(Value);

/// The keywords that are checked.
const CHECKED: &[&str] = &[
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contentEncoding",
    "contentSchema",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
];
/// Keywords without a rule for what the server writes. `propertyNames` is about CloudEvents that it reads.
const NOTES: &[&str] = &["contentMediaType", "default", "description", "examples", "propertyNames"];

/// The members of an object that its schema names; `None` if it may have any.
type Named = Option<BTreeSet<String>>;

impl Description {
    pub fn read() -> Self {
        Description(serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON"))
    }

    /// Panics if a value does not fit the schema of this name.
    #[track_caller]
    pub fn expect(&self, name: &str, value: &Value) {
        let schema = &self.0["components"]["schemas"][name];
        assert!(schema.is_object(), "there is no schema {name}");
        self.fits(schema, value).unwrap_or_else(|error| panic!("{error}\nin {value}"));
    }

    /// Panics if a JSON body is not as described for the operation and the status. Returns the body.
    #[track_caller]
    pub fn expect_answer(&self, operation: &str, response: &Response) -> Value {
        let mut operations = self.0["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|it| it.as_object().expect("methods").values());
        let described = operations.find(|it| it["operationId"] == operation).expect("an operation");
        let mut answer = &described["responses"][response.status().to_string()];
        if let Some(location) = answer["$ref"].as_str() {
            answer = self.0.pointer(&location[1..]).expect("a response");
        }
        let schema = &answer["content"][response.header("Content-Type").expect("a content type")]["schema"];
        let body = response.json();
        assert!(schema.is_object(), "{operation} does not describe {:?} {body}", response.head);
        self.fits(schema, &body).unwrap_or_else(|error| panic!("{error}\nin {body}"));
        body
    }

    /// Checks a value, and that its schema names all its members.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(named) = self.check(schema, value)? else { return Ok(()) };
        match value.as_object().and_then(|members| members.keys().find(|name| !named.contains(*name))) {
            Some(name) => Err(format!("no schema names {name}")),
            None => Ok(()),
        }
    }

    /// Checks a value, and returns the members that the schema names.
    fn check(&self, schema: &Value, value: &Value) -> Result<Named, String> {
        let wrong = |keyword: &str| Err(format!("{keyword} of {schema}: {value}"));
        let list = |keyword: &str| schema[keyword].as_array().map(Vec::as_slice).unwrap_or_default();
        let unknown = |name: &&String| !CHECKED.contains(&name.as_str()) && !NOTES.contains(&name.as_str());
        if let Some(name) = schema.as_object().and_then(|schema| schema.keys().find(unknown)) {
            return wrong(&format!("the unknown keyword {name}"));
        }
        if !schema["type"].is_null() && !is_of_type(&schema["type"], value) {
            return wrong("type");
        }
        if schema.get("const").is_some_and(|wanted| wanted != value)
            || schema.get("enum").is_some() && !list("enum").contains(value)
        {
            return wrong("const or enum");
        }
        if let Some(number) = value.as_f64()
            && (schema["minimum"].as_f64().is_some_and(|least| number < least)
                || schema["maximum"].as_f64().is_some_and(|most| number > most))
        {
            return wrong("bounds");
        }
        if let Some(length) = length(value)
            && (["minLength", "minItems"]
                .iter()
                .any(|least| schema[*least].as_u64().is_some_and(|least| length < least))
                || ["maxLength", "maxItems"]
                    .iter()
                    .any(|most| schema[*most].as_u64().is_some_and(|most| length > most)))
        {
            return wrong("length");
        }
        if let Some(text) = value.as_str() {
            if let Some(pattern) = schema["pattern"].as_str()
                && !Regex::new(pattern).map_err(|error| error.to_string())?.is_match(text)
            {
                return wrong("pattern");
            }
            if schema["contentEncoding"] == "base64" && BASE64_STANDARD.decode(text).is_err() {
                return wrong("contentEncoding");
            }
            if schema["format"] == "date-time" && OffsetDateTime::parse(text, &Rfc3339).is_err() {
                return wrong("format");
            }
            if let Some(content) = schema.get("contentSchema") {
                self.fits(content, &serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?)?;
            }
        }
        for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
            self.fits(&schema["items"], item)?;
        }
        let mut parts: Vec<Named> = Vec::new();
        if let Some(location) = schema["$ref"].as_str() {
            let part = self.0.pointer(&location[1..]).ok_or_else(|| format!("{location} leads nowhere"))?;
            parts.push(self.check(part, value)?);
        }
        for part in list("allOf") {
            parts.push(self.check(part, value)?);
        }
        for (keyword, most) in [("anyOf", usize::MAX), ("oneOf", 1)] {
            let choices: Vec<_> = list(keyword).iter().map(|choice| self.check(choice, value)).collect();
            let errors: Vec<_> = choices.iter().filter_map(|choice| choice.as_ref().err()).collect();
            let fitting = choices.len() - errors.len();
            if !choices.is_empty() && (fitting == 0 || fitting > most) {
                return Err(format!("{fitting} of {keyword} fit {value}: {errors:#?}"));
            }
            parts.extend(choices.into_iter().flatten());
        }
        let Some(members) = value.as_object() else { return Ok(None) };
        if let Some(name) =
            list("required").iter().find(|name| !members.contains_key(name.as_str().unwrap_or_default()))
        {
            return Err(format!("{name} is missing"));
        }
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten().filter(|(name, _)| members.contains_key(*name)) {
            self.fits(property, &members[name]).map_err(|error| format!("{name}: {error}"))?;
        }
        let others = schema.get("additionalProperties");
        if let Some(others) = others.filter(|others| others.is_object()) {
            let is_other = |name: &String| properties.is_none_or(|properties| !properties.contains_key(name));
            for (_, value) in members.iter().filter(|(name, _)| is_other(name)) {
                self.fits(others, value)?;
            }
        }
        // An object of which nothing is said may have any members.
        let says_nothing = properties.is_none() && parts.is_empty() && schema["maxProperties"] != 0;
        if others.is_some_and(|others| *others != false) || says_nothing {
            return Ok(None);
        }
        parts.push(Some(properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()));
        Ok(parts.into_iter().try_fold(BTreeSet::new(), |all, part| Some(&all | &part?)))
    }
}

/// Characters of a text, or items of an array. An array has no `minLength`, and a text no `minItems`.
fn length(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => Some(text.chars().count() as u64),
        Value::Array(items) => Some(items.len() as u64),
        _ => None,
    }
}

/// Whether a value is of the type, or of one of the types.
fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("the name of a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type of JSON: {other}"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_differs_from_its_schema_is_found() {
        let description = Description(json!({"components": {"schemas": {
            "Id": {"type": "string", "pattern": "^[xy]$"},
            "Head": {"type": "object", "required": ["id"], "properties": {"id": {"$ref": "#/components/schemas/Id"}}},
            "Whole": {"oneOf": [
                {"allOf": [
                    {"$ref": "#/components/schemas/Head"},
                    {"type": "object", "properties": {
                        "count": {"type": ["integer", "null"], "minimum": 1},
                        "kind": {"enum": ["a", "b"]},
                        "at": {"type": "string", "format": "date-time"},
                        "data": {"type": "string", "contentSchema": {"$ref": "#/components/schemas/Head"}},
                        "list": {"type": "array", "maxItems": 1, "items": {"$ref": "#/components/schemas/Head"}},
                        "raw": {"type": "string", "contentEncoding": "base64", "maxLength": 4},
                        "any": {"type": "object"},
                        "none": {"type": "object", "maxProperties": 0},
                        "map": {"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "string"}},
                    }},
                ]},
                {"type": "object", "required": ["other"], "properties": {"other": {"const": 1}}},
            ]},
        }}}));
        let fits = |value: &Value| description.fits(&json!({"$ref": "#/components/schemas/Whole"}), value);
        for right in [
            json!({"id": "x", "count": 1, "kind": "a", "at": "2026-11-23T12:00:00Z", "data": "{\"id\":\"y\"}"}),
            json!({"id": "x", "count": null, "list": [{"id": "y"}], "any": {"z": 1}, "none": {}}),
            json!({"id": "x", "map": {"a": null, "b": ""}, "raw": "AAA="}),
            json!({"other": 1}),
        ] {
            assert_eq!(fits(&right), Ok(()), "{right}");
        }
        for wrong in [
            json!({"count": 1}),
            json!({"id": 1}),
            json!({"id": "z"}),
            json!({"id": "x", "raw": "AAA"}),
            json!({"id": "x", "raw": "AAAAAAAA"}),
            json!({"id": "x", "list": [{"id": "y"}, {"id": "y"}]}),
            json!({"id": "x", "count": 0}),
            json!({"id": "x", "count": 1.5}),
            json!({"id": "x", "kind": "c"}),
            json!({"id": "x", "at": "12:00"}),
            json!({"id": "x", "data": "{}"}),
            json!({"id": "x", "list": [{"id": "y", "z": 1}]}),
            json!({"id": "x", "none": {"z": 1}}),
            json!({"id": "x", "map": {"b": 1}}),
            json!({"id": "x", "unknown": 1}),
            json!({"id": "x", "other": 1}),
            json!({"other": 2}),
            json!([]),
        ] {
            assert!(fits(&wrong).is_err(), "{wrong}");
        }
    }
}
