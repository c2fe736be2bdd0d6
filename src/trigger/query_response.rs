//! Reads Prometheus' response to an instant query.
//!
//! In: the HTTP status, the body, and the credentials that were sent. Out: a [`MetricValue`], or why there is none,
//! worded for a status message. Only a zero counts as zero: a missing series, or a value that is not a number,
//! is an error. `serverAddress` may lead to any server. So a status shows only numbers and the beginning of
//! Prometheus' own errors and warnings, never another server's response and never a credential.

use serde::Deserialize;
use serde_json::Value;

/// How many characters of Prometheus' errors and warnings a status shows.
const MAX_ERROR_CHARS: usize = 300;
/// How many characters of a value or of a type's name a status shows.
const MAX_VALUE_CHARS: usize = 32;
/// The error types of Prometheus' API, including those of Mimir and Thanos.
const ERROR_TYPES: [&str; 9] = [
    "timeout",
    "canceled",
    "execution",
    "bad_data",
    "internal",
    "unavailable",
    "not_found",
    "not_acceptable",
    "too_many_requests",
];

/// The value of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricValue {
    /// A finite number.
    pub value: f64,
    /// A warning that Prometheus sent with the value, for example about a part that it could not read.
    pub warning: Option<String>,
}

#[derive(Deserialize)]
struct QueryResponse {
    status: String,
    #[serde(default)]
    data: Option<QueryData>,
    #[serde(default, rename = "errorType")]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueryData {
    result_type: String,
    result: Value,
}

/// Reads a response. `hidden` are the credentials that were sent; no message contains them.
///
/// # Errors
///
/// Why there is no value, worded for a status message.
pub fn parse(status: u16, body: &[u8], hidden: &[String]) -> Result<MetricValue, String> {
    let parsed: Result<QueryResponse, _> = serde_json::from_slice(body);
    let Ok(parsed) = parsed else {
        return Err(unexpected_response(status));
    };
    if parsed.status != "success" || !(200..300).contains(&status) {
        // A server that refuses credentials may echo them in another encoding.
        let is_refused = matches!(status, 401 | 403);
        if is_refused || !matches!(&*parsed.status, "success" | "error") {
            return Err(unexpected_response(status));
        }
        let reason = if !ERROR_TYPES.contains(&&*parsed.kind) || parsed.error.is_empty() {
            "no reason".to_owned()
        } else {
            let text = format!("{}: {}", parsed.kind, parsed.error);
            sanitize(&text, MAX_ERROR_CHARS, hidden)
        };
        return Err(format!(
            "Prometheus refuses the query (status {status}): {reason}"
        ));
    }
    let warning = (!parsed.warnings.is_empty())
        .then(|| format!("Prometheus warns: {}", parsed.warnings.join("; ")));
    let warning = warning.map(|text| sanitize(&text, MAX_ERROR_CHARS, hidden));
    let Some(data) = parsed.data else {
        return Err("the answer of Prometheus has no data".to_owned());
    };
    match parse_value(&data, hidden) {
        Ok(value) => Ok(MetricValue { value, warning }),
        Err(why) => Err(match warning {
            Some(warning) => format!("{why}; {warning}"),
            None => why,
        }),
    }
}

fn parse_value(data: &QueryData, hidden: &[String]) -> Result<f64, String> {
    let element = match (data.result_type.as_str(), &data.result) {
        ("vector", Value::Array(elements)) => only_element(elements)?.pointer("/value/1"),
        ("scalar", Value::Array(pair)) => pair.get(1),
        ("string", _) => {
            return Err("the query's answer is a string: ask for a number".to_owned());
        }
        ("matrix", _) => {
            return Err(
                "the query's answer is a range: ask for a number, such as with avg_over_time(...)"
                    .to_owned(),
            );
        }
        (kind, _) => {
            return Err(format!(
                "the query's answer is of type '{}', which is neither a vector nor a scalar",
                sanitize(kind, MAX_VALUE_CHARS, hidden)
            ));
        }
    };
    parse_number(element.and_then(Value::as_str).unwrap_or_default(), hidden)
}

/// The element of a vector, if it has one and that is a number.
fn only_element(elements: &[Value]) -> Result<&Value, String> {
    match elements {
        [] => Err(
            "the query's answer is empty: no series matches, which is not the same as 0".to_owned(),
        ),
        [element] if element.get("histogram").is_some() => Err(
            "the query's answer is a histogram: ask for a number, such as histogram_quantile(0.9, ...)"
                .to_owned(),
        ),
        [element] => Ok(element),
        elements => Err(format!(
            "the query's answer has {} elements: aggregate it to one, such as with sum(...)",
            elements.len()
        )),
    }
}

/// Reads a number as Prometheus writes it. Only a finite number is a value.
fn parse_number(text: &str, hidden: &[String]) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) if number.is_nan() => {
            Err("the query's value is NaN, for example from 0 / 0".to_owned())
        }
        Ok(_) => Err(format!(
            "the query's value is {text}, for example from a division by 0"
        )),
        Err(_) => Err(format!(
            "the query's value '{}' is not a number",
            sanitize(text, MAX_VALUE_CHARS, hidden)
        )),
    }
}

/// The message for a response that does not come from Prometheus, or that must not be quoted.
fn unexpected_response(status: u16) -> String {
    match status {
        401 | 403 => format!(
            "Prometheus rejects the operator's credentials (status {status}): see authSecretRef and azureCredential"
        ),
        300..=399 => format!(
            "Prometheus redirects the query (status {status}): set serverAddress to the address that it redirects to"
        ),
        200..=299 => "the answer is not from Prometheus: see serverAddress".to_owned(),
        _ => format!(
            "serverAddress answers with status {status}, and not in the format of Prometheus"
        ),
    }
}

/// The first `max_chars` characters of a server's text, on one line and with credentials replaced.
pub fn sanitize(text: &str, max_chars: usize, hidden: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[hidden]");
    }
    let text: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let text = text.join(" ");
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn success(kind: &str, result: &Value) -> Value {
        json!({"status": "success", "data": {"resultType": kind, "result": result}})
    }

    fn vector(values: &[&str]) -> Value {
        let elements = values
            .iter()
            .map(|value| json!({"metric": {}, "value": [1.5, value]}));
        success("vector", &elements.collect())
    }

    fn parse_with_secret(status: u16, body: &Value) -> Result<MetricValue, String> {
        parse(status, body.to_string().as_bytes(), &["SECRET".to_owned()])
    }

    #[test]
    fn a_vector_of_one_and_a_scalar_are_values() {
        let value = |body: &Value| parse_with_secret(200, body).map(|metric| metric.value);
        assert_eq!(value(&vector(&["1520"])), Ok(1520.0));
        assert_eq!(value(&vector(&["0"])), Ok(0.0), "a zero is a zero");
        assert_eq!(value(&vector(&["-1.5e3"])), Ok(-1500.0));
        assert_eq!(value(&success("scalar", &json!([1.5, "7"]))), Ok(7.0));
    }

    #[test]
    fn each_answer_without_a_value_has_its_own_message_and_none_is_zero() {
        let histogram = json!([{"metric": {}, "histogram": [1.5, {"count": "1"}]}]);
        let error =
            json!({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"});
        let cases = [
            (200, vector(&[]), "is empty"),
            (200, vector(&["NaN"]), "is NaN"),
            (200, vector(&["+Inf"]), "is +Inf"),
            (200, vector(&["-Inf"]), "is -Inf"),
            (200, vector(&["1", "2"]), "has 2 elements"),
            (200, vector(&["many"]), "'many' is not a number"),
            (200, success("string", &json!([1.5, "7"])), "is a string"),
            (200, success("matrix", &json!([])), "is a range"),
            (200, success("vector", &histogram), "is a histogram"),
            (200, success("tensor", &json!([])), "of type 'tensor'"),
            (200, json!({"status": "success"}), "has no data"),
            (
                400,
                error.clone(),
                "(status 400): bad_data: parse error at char 3",
            ),
            (200, error, "(status 200): bad_data"),
            (422, json!({"status": "error"}), "no reason"),
            (200, json!({"anything": "else"}), "not from Prometheus"),
            (302, json!("found"), "redirects the query"),
            (401, json!("no"), "authSecretRef"),
            (
                503,
                json!("internal words"),
                "status 503, and not in the format",
            ),
            (
                200,
                success("vector", &json!([{"metric": {}, "value": [1.5, null]}])),
                "'' is not a number",
            ),
        ];
        let mut messages: Vec<String> = Vec::new();
        for (status, body, expected) in cases {
            let why = parse_with_secret(status, &body).expect_err(expected);
            assert!(why.contains(expected), "{expected}: {why}");
            assert!(
                !messages.contains(&why),
                "two cases have the same message: {why}"
            );
            messages.push(why);
        }
    }

    #[test]
    fn a_warning_is_reported_with_the_value_or_with_the_error() {
        let with_warning = |mut body: Value| {
            body["warnings"] = json!(["a store is away"]);
            parse_with_secret(200, &body)
        };
        let metric = with_warning(vector(&["3"])).expect("a value");
        assert!((metric.value - 3.0).abs() < f64::EPSILON);
        assert_eq!(
            metric.warning.as_deref(),
            Some("Prometheus warns: a store is away")
        );
        let why = with_warning(vector(&[])).expect_err("no value");
        assert!(
            why.contains("is empty") && why.contains("a store is away"),
            "{why}"
        );
    }

    #[test]
    fn long_texts_of_a_server_are_cut_between_characters() {
        let long = "é".repeat(1000);
        let error = json!({"status": "error", "errorType": "internal", "error": long});
        let why = parse_with_secret(500, &error).expect_err("an error");
        assert!(why.chars().count() < 400 && why.ends_with("..."), "{why}");
    }

    #[test]
    fn a_message_contains_no_credential_and_only_text_of_prometheus() {
        let error = |kind: &str| json!({"status": "error", "errorType": kind, "error": "a\u{1b}\nSECRET b"});
        let why = |status, body: &Value| parse_with_secret(status, body).expect_err("an error");
        assert!(why(400, &error("bad_data")).ends_with("bad_data: a [hidden] b"));
        for (status, body) in [
            (401, error("bad_data")),
            (403, error("bad_data")),
            (500, error("Unauthorized: a SECRET b")),
            (500, json!("a SECRET b")),
            (200, json!({"kind": "Secret", "data": {"a": "SECRET b"}})),
            (
                404,
                json!({"kind": "Status", "status": "Failure", "error": "a SECRET b"}),
            ),
            (302, json!("a SECRET b")),
        ] {
            let why = why(status, &body);
            assert!(
                !why.contains("SECRET") && !why.contains(" b"),
                "{status} {body}: {why}"
            );
        }
        let long = vector(&[&"SECRET".repeat(50)]);
        assert!(!why(200, &long).contains("SECRET"));
    }
}
