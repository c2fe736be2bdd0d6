//! What Prometheus' answer to an instant query says.
//!
//! In: status and body. Out: a [`Reading`], or why there is none, in words for a status. Nothing counts
//! as zero but a zero: a series that is missing, and a value that is no number, say nothing.

use serde::Deserialize;
use serde_json::Value;

/// How much of a foreign text is told.
const WORDS: usize = 300;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The query's value: a finite number.
    pub value: f64,
    /// What Prometheus warns of although it answers, such as a part that it could not read.
    pub warning: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// Reads an answer.
pub fn read(status: u16, body: &[u8]) -> Result<Reading, String> {
    let parsed: Result<Body, _> = serde_json::from_slice(body);
    let Ok(parsed) = parsed else {
        return Err(foreign(status, body));
    };
    if parsed.status != "success" || !(200..300).contains(&status) {
        let said = if parsed.error.is_empty() {
            "no reason".to_owned()
        } else {
            shortened(&format!("{}: {}", parsed.kind, parsed.error))
        };
        return Err(format!(
            "Prometheus refuses the query (status {status}): {said}"
        ));
    }
    let warning = (!parsed.warnings.is_empty())
        .then(|| shortened(&format!("Prometheus warns: {}", parsed.warnings.join("; "))));
    let Some(data) = parsed.data else {
        return Err("Prometheus' answer has no data".to_owned());
    };
    match value(&data) {
        Ok(value) => Ok(Reading { value, warning }),
        Err(why) => Err(match warning {
            Some(warning) => format!("{why}; {warning}"),
            None => why,
        }),
    }
}

fn value(data: &Data) -> Result<f64, String> {
    let text = match (data.result_type.as_str(), &data.result) {
        ("vector", Value::Array(elements)) => match elements.as_slice() {
            [] => {
                return Err(
                    "the query's answer is empty: nothing has such a series, which is not the same as 0"
                        .to_owned(),
                );
            }
            [one] if one.get("histogram").is_some() => {
                return Err("the query's answer is a histogram: ask for a number, such as histogram_quantile(0.9, ...)".to_owned());
            }
            [one] => one.pointer("/value/1"),
            more => {
                return Err(format!(
                    "the query's answer has {} elements: aggregate it to one, such as with sum(...)",
                    more.len()
                ));
            }
        },
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
                "the query's answer is of type '{}', which is no vector and no scalar",
                shortened(kind)
            ));
        }
    };
    let text = text.and_then(Value::as_str).unwrap_or_default();
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) if number.is_nan() => {
            Err("the query's value is NaN, such as of 0 / 0: it says nothing".to_owned())
        }
        Ok(_) => Err(format!(
            "the query's value is {text}, such as of a division by 0: it says nothing"
        )),
        Err(_) => Err(format!(
            "the query's value '{}' is no number",
            shortened(text)
        )),
    }
}

/// An answer that is not Prometheus'.
fn foreign(status: u16, body: &[u8]) -> String {
    match status {
        401 | 403 => format!(
            "Prometheus does not let us ask (status {status}): see authSecretRef and azureCredential"
        ),
        300..=399 => format!(
            "Prometheus sends us elsewhere (status {status}): set serverAddress to where that is"
        ),
        200..=299 => "the answer is not Prometheus': see serverAddress".to_owned(),
        _ => {
            let text = String::from_utf8_lossy(body);
            let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            format!(
                "Prometheus answers with status {status}: {}",
                shortened(&text)
            )
        }
    }
}

/// The beginning of a foreign text.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
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

    fn said(status: u16, body: &Value) -> Result<Reading, String> {
        read(status, body.to_string().as_bytes())
    }

    #[test]
    fn a_vector_of_one_and_a_scalar_are_values() {
        let value = |body: &Value| said(200, body).map(|reading| reading.value);
        assert_eq!(value(&vector(&["1520"])), Ok(1520.0));
        assert_eq!(value(&vector(&["0"])), Ok(0.0), "a zero is a zero");
        assert_eq!(value(&vector(&["-1.5e3"])), Ok(-1500.0));
        assert_eq!(value(&success("scalar", &json!([1.5, "7"]))), Ok(7.0));
    }

    #[test]
    fn each_answer_that_says_nothing_has_its_own_words_and_none_is_zero() {
        let histogram = json!([{"metric": {}, "histogram": [1.5, {"count": "1"}]}]);
        let error =
            json!({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"});
        let cases = [
            (200, vector(&[]), "is empty"),
            (200, vector(&["NaN"]), "is NaN"),
            (200, vector(&["+Inf"]), "is +Inf"),
            (200, vector(&["-Inf"]), "is -Inf"),
            (200, vector(&["1", "2"]), "has 2 elements"),
            (200, vector(&["many"]), "'many' is no number"),
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
            (200, json!({"anything": "else"}), "not Prometheus'"),
            (302, json!("found"), "sends us elsewhere"),
            (401, json!("no"), "authSecretRef"),
            (503, json!("no backend"), "status 503: \"no backend\""),
            (
                200,
                success("vector", &json!([{"metric": {}, "value": [1.5, null]}])),
                "'' is no number",
            ),
        ];
        let mut words: Vec<String> = Vec::new();
        for (status, body, word) in cases {
            let why = said(status, &body).expect_err(word);
            assert!(why.contains(word), "{word}: {why}");
            assert!(!words.contains(&why), "twice the same words: {why}");
            words.push(why);
        }
    }

    #[test]
    fn a_warning_is_told_beside_the_value_or_beside_the_trouble() {
        let warned = |mut body: Value| {
            body["warnings"] = json!(["a store is away"]);
            said(200, &body)
        };
        let reading = warned(vector(&["3"])).expect("a value");
        assert!((reading.value - 3.0).abs() < f64::EPSILON);
        assert_eq!(
            reading.warning.as_deref(),
            Some("Prometheus warns: a store is away")
        );
        let why = warned(vector(&[])).expect_err("no value");
        assert!(
            why.contains("is empty") && why.contains("a store is away"),
            "{why}"
        );
    }

    #[test]
    fn long_foreign_texts_are_cut_between_letters() {
        let long = "é".repeat(1000);
        let why = said(500, &json!(long)).expect_err("an error");
        assert!(why.chars().count() < 400 && why.ends_with("..."), "{why}");
    }
}
