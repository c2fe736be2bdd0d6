//! Decodes the JSON of registries as container runtimes do, with limited memory.
//!
//! In: the body of a manifest or a configuration. Out: its fields, or what is wrong, without the content. Pure.
//! Container runtimes are written in Go. Go's decoder ignores the case of field names, and the last of two fields of one
//! name counts. A body that has a field name in another case is refused, because a runtime would read it differently.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The maximum number of entries of a list. A decoded entry takes more memory than its JSON.
const MAX_ENTRIES: usize = 1_000;

/// The names of an object's fields, each with those of the objects in it.
pub(super) struct FieldNames(pub &'static [(&'static str, Option<&'static FieldNames>)]);

/// Decodes `body`, whose objects have the fields `names`. An error names the place, and quotes nothing.
pub(super) fn decode<T: DeserializeOwned>(
    body: &[u8],
    names: &'static FieldNames,
    what: &str,
) -> Result<T, String> {
    let mut checked = serde_json::Deserializer::from_slice(body);
    let cases = FieldCaseCheck(names).deserialize(&mut checked);
    let problem = |why: &str, error: &serde_json::Error| {
        format!(
            "{what} {why} (line {}, column {})",
            error.line(),
            error.column()
        )
    };
    if let Err(error) = cases {
        let why = if error.is_data() {
            "has a known field name in the wrong letter case"
        } else {
            "is not valid JSON"
        };
        return Err(problem(why, &error));
    }
    serde_json::from_slice(body).map_err(|error| {
        let why = if error.is_data() {
            "has a field twice, a value of the wrong type, or a list of more than 1000 entries"
        } else {
            "is not valid JSON"
        };
        problem(why, &error)
    })
}

/// Visits a value and refuses names that differ from known ones in their case only.
#[derive(Clone, Copy)]
struct FieldCaseCheck(&'static FieldNames);

impl<'de> DeserializeSeed<'de> for FieldCaseCheck {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldCaseCheck {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let mut names = self.0.0.iter();
            match names.find(|(name, _)| is_same_field(name, &key)) {
                Some((name, _)) if *name != key => {
                    return Err(A::Error::custom("the case of a name"));
                }
                Some((_, Some(inner))) => map.next_value_seed(FieldCaseCheck(inner))?,
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Whether Go's decoder takes `key` for the field `name`: it ignores the case of letters. Two letters outside ASCII
/// fold to ASCII letters: the Kelvin sign to `k`, and the long s to `s`.
fn is_same_field(name: &str, key: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    });
    name.chars().map(|c| c.to_ascii_lowercase()).eq(folded)
}

/// Decodes a list of at most [`MAX_ENTRIES`] entries, or `null`.
pub(super) fn bounded_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(LimitedList(PhantomData))
}

struct LimitedList<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LimitedList<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element()? {
            if list.len() == MAX_ENTRIES {
                return Err(A::Error::custom("too many entries"));
            }
            list.push(entry);
        }
        Ok(Some(list))
    }
}

/// Decodes a command line: a list, or the single string that early versions of Docker wrote.
pub(super) fn string_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    deserializer.deserialize_any(StringOrListVisitor)
}

struct StringOrListVisitor;

impl<'de> Visitor<'de> for StringOrListVisitor {
    type Value = Option<Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a string")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
        Ok(Some(vec![word.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        LimitedList(PhantomData).visit_seq(seq)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    static INNER: FieldNames = FieldNames(&[("User", None), ("sks", None)]);
    static OUTER: FieldNames = FieldNames(&[("config", Some(&INNER)), ("os", None)]);

    fn check(body: &str) -> Result<Value, String> {
        decode(body.as_bytes(), &OUTER, "the configuration")
    }

    #[test]
    fn names_that_a_runtime_takes_for_others_are_refused() {
        for body in [
            r#"{"config": {"User": "1000", "user": "0"}}"#,
            r#"{"config": {"USER": "0"}}"#,
            r#"{"Config": {}}"#,
            r#"{"config": [{"user": "0"}]}"#,
            r#"{"config": {"us\u0065r": "0"}}"#,
            r#"{"config": {"\u017f\u212a\u017f": "0"}}"#,
        ] {
            let error = check(body).expect_err(body);
            assert!(error.contains("in the wrong letter case"), "{error}");
        }
        for body in [
            r#"{"config": {"User": "0", "Labels": {"user": "a", "USER": "b"}}, "user": 1, "os": null}"#,
            r#"[1, -1, 1.5, "a", true, null, {"os": {"OS": 1}}]"#,
        ] {
            assert!(check(body).is_ok(), "{body}");
        }
    }

    #[test]
    fn an_error_names_the_place_and_quotes_nothing() {
        let secret = "x".repeat(10_000);
        for body in [
            format!("{{\"{secret}"),
            secret.clone(),
            format!("{{\"os\": {secret}}}"),
        ] {
            let error = check(&body).expect_err("an error");
            assert!(
                error.starts_with("the configuration is not valid JSON (line 1, column ")
                    && error.len() < 100,
                "{error}"
            );
        }
    }

    #[test]
    fn lists_have_a_limit() {
        #[derive(Deserialize)]
        struct Lists {
            #[serde(default, deserialize_with = "bounded_list")]
            list: Option<Vec<u8>>,
            #[serde(default, deserialize_with = "string_or_list")]
            words: Option<Vec<String>>,
        }
        let lists = |value: Value| serde_json::from_value::<Lists>(value);
        let most =
            lists(json!({"list": vec![1; 1_000], "words": vec!["a"; 1_000]})).expect("1,000");
        assert_eq!(most.list.map(|list| list.len()), Some(1_000));
        assert_eq!(most.words.map(|list| list.len()), Some(1_000));
        assert!(lists(json!({"list": vec![1; 1_001]})).is_err());
        assert!(lists(json!({"words": vec!["a"; 1_001]})).is_err());
        let none = lists(json!({"list": null})).expect("none");
        assert!(none.list.is_none() && none.words.is_none());
        let one = lists(json!({"words": "a"})).expect("one word");
        assert_eq!(one.words, Some(vec!["a".to_owned()]));
    }
}
