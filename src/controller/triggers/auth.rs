//! Credentials for Prometheus, read from a Secret.
//!
//! In: a Secret's keys. Out: a [`PrometheusAuth`], or which key is wrong or missing. No error contains a value,
//! and no type here can be printed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

/// The credentials for queries to Prometheus.
#[derive(Default)]
pub(super) struct PrometheusAuth {
    /// The header that authenticates the operator.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// A client certificate and its key, in PEM.
    pub client_certificate: Option<Vec<u8>>,
    /// The trusted certificate authorities, in PEM.
    pub ca: Option<Vec<u8>>,
    /// The Secret's resource version.
    pub version: Option<String>,
    /// Values that no message may contain.
    pub secrets: Vec<String>,
}

/// Keys that are valid only together.
const KEY_PAIRS: [(&str, &str); 3] = [
    ("username", "password"),
    ("headerName", "headerValue"),
    ("tls.crt", "tls.key"),
];

/// The ways to authenticate by a header, a Secret may have one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderMethod {
    /// `username` and `password`: basic authentication.
    Basic,
    /// `token`: a bearer token.
    Bearer,
    /// `headerName` and `headerValue`: any header.
    Custom,
}

impl HeaderMethod {
    /// Each way, with the key by which it is recognized.
    const ALL: [(&str, Self); 3] = [
        ("username", Self::Basic),
        ("token", Self::Bearer),
        ("headerName", Self::Custom),
    ];
}

impl PrometheusAuth {
    /// Reads a Secret's keys. `version` is the Secret's resource version.
    ///
    /// # Errors
    ///
    /// Which key is wrong or missing, worded to follow the Secret's name.
    pub fn from_secret<'a>(
        data: impl Iterator<Item = (&'a str, &'a [u8])>,
        version: Option<String>,
    ) -> Result<Self, String> {
        let keys = SecretKeys(data.collect());
        keys.check_pairs()?;
        let method = keys.header_method()?;
        let mut secrets = keys.sent_values()?;
        let auth = Self {
            header: method
                .map(|method| keys.header(method, &mut secrets))
                .transpose()?,
            client_certificate: keys.client_certificate(),
            ca: keys.bytes("ca.crt"),
            version,
            secrets,
        };
        // A Secret without any of these keys is probably the wrong one, or a key is misspelled.
        if auth.header.is_none() && auth.client_certificate.is_none() && auth.ca.is_none() {
            return Err("has none of the keys username and password, token, headerName and headerValue, tls.crt and tls.key, ca.crt".to_owned());
        }
        Ok(auth)
    }
}

/// The keys of a Secret.
struct SecretKeys<'a>(BTreeMap<&'a str, &'a [u8]>);

impl SecretKeys<'_> {
    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.0.get(key).map(|bytes| bytes.to_vec())
    }

    /// The value of a key as text; empty if there is none.
    fn text(&self, key: &str) -> Result<String, String> {
        let bytes = self.0.get(key).copied().unwrap_or_default();
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| format!("has a key {key} that is not text"))?;
        // Files often end with a newline, which a header value cannot contain.
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Half of a pair is a mistake: without this check, the query would be sent without these credentials.
    fn check_pairs(&self) -> Result<(), String> {
        for (one, other) in KEY_PAIRS {
            let missing = match (self.has(one), self.has(other)) {
                (true, false) => other,
                (false, true) => one,
                (true, true) | (false, false) => continue,
            };
            return Err(format!(
                "lacks the key {missing}: {one} and {other} belong together"
            ));
        }
        Ok(())
    }

    fn header_method(&self) -> Result<Option<HeaderMethod>, String> {
        let present = HeaderMethod::ALL.iter().filter(|(key, _)| self.has(key));
        let present: Vec<_> = present.collect();
        match present[..] {
            [] => Ok(None),
            [(_, method)] => Ok(Some(*method)),
            [(one, _), (other, _), ..] => Err(format!(
                "has {one} and {other}: remove one of them, because only one can authenticate the request"
            )),
        }
    }

    /// The values that are sent as they are. None of them may be the token of a service account.
    fn sent_values(&self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        for key in ["password", "token", "headerValue"] {
            let value = self.text(key)?;
            if value.split([' ', ',']).any(is_service_account_token) {
                return Err(format!(
                    "has a service account's token in the key {key}, which is never sent: use a credential that \
                     only Prometheus accepts"
                ));
            }
            values.extend(Some(value).filter(|value| !value.is_empty()));
        }
        Ok(values)
    }

    /// The header of the chosen way. Adds an encoded credential to `secrets`.
    fn header(
        &self,
        method: HeaderMethod,
        secrets: &mut Vec<String>,
    ) -> Result<(HeaderName, HeaderValue), String> {
        match method {
            HeaderMethod::Basic => {
                let credentials = format!("{}:{}", self.text("username")?, self.text("password")?);
                let credentials = BASE64_STANDARD.encode(credentials);
                let value = sensitive_header("password", &format!("Basic {credentials}"))?;
                secrets.push(credentials);
                Ok((AUTHORIZATION, value))
            }
            HeaderMethod::Bearer => {
                let token = format!("Bearer {}", self.text("token")?);
                Ok((AUTHORIZATION, sensitive_header("token", &token)?))
            }
            HeaderMethod::Custom => {
                let name = self.text("headerName")?.parse();
                let name = name.map_err(|_| {
                    "has a key headerName that is not a valid header name".to_owned()
                })?;
                let value = sensitive_header("headerValue", &self.text("headerValue")?)?;
                Ok((name, value))
            }
        }
    }

    /// The certificate and its key, one after the other.
    fn client_certificate(&self) -> Option<Vec<u8>> {
        let mut pem = self.bytes("tls.crt")?;
        pem.push(b'\n');
        pem.extend(self.bytes("tls.key")?);
        Some(pem)
    }
}

/// Whether a text is the token of a Kubernetes service account: a JWT whose subject is one.
fn is_service_account_token(text: &str) -> bool {
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap_or_default();
    let subject = claims["sub"].as_str().unwrap_or_default();
    subject.starts_with("system:serviceaccount:")
}

/// A header value that is marked sensitive, so that it is not printed.
fn sensitive_header(key: &str, text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| format!("has a key {key} that cannot be in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_keys(data: &[(&str, &str)]) -> Result<PrometheusAuth, String> {
        PrometheusAuth::from_secret(
            data.iter().map(|(key, value)| (*key, value.as_bytes())),
            None,
        )
    }

    fn header(data: &[(&str, &str)]) -> (String, String) {
        let (name, value) = parse_keys(data)
            .ok()
            .and_then(|auth| auth.header)
            .expect("a header");
        assert!(value.is_sensitive());
        (name.to_string(), value.to_str().expect("text").to_owned())
    }

    #[test]
    fn each_way_to_authenticate_has_its_own_keys() {
        let basic = header(&[("username", "shop"), ("password", "pass\n")]);
        assert_eq!(basic, ("authorization".into(), "Basic c2hvcDpwYXNz".into()));
        let bearer = header(&[("token", "t0ken\r\n"), ("ca.crt", "pem")]);
        assert_eq!(bearer, ("authorization".into(), "Bearer t0ken".into()));
        let custom = header(&[("headerName", "X-Scope-OrgID"), ("headerValue", "shop")]);
        assert_eq!(custom, ("x-scope-orgid".into(), "shop".into()));
        let Ok(mutual) = parse_keys(&[("tls.crt", "cert"), ("tls.key", "key")]) else {
            unreachable!("both are there");
        };
        assert_eq!(
            mutual.client_certificate.as_deref(),
            Some(&b"cert\nkey"[..])
        );
        assert!(mutual.header.is_none() && mutual.ca.is_none());
    }

    #[test]
    fn a_service_accounts_token_is_refused_under_every_key() {
        let jwt = |subject: &str| {
            let claims = serde_json::json!({"sub": subject}).to_string();
            format!("SECRET.{}.SECRET", BASE64_URL_SAFE_NO_PAD.encode(claims))
        };
        let account = jwt("system:serviceaccount:monitoring:default");
        let bearer = format!("Bearer {account}");
        for data in [
            &[("token", account.as_str())][..],
            &[("username", "a"), ("password", &account)],
            &[("headerName", "x-token"), ("headerValue", &bearer)],
        ] {
            let why = parse_keys(data).err().expect("it is refused");
            assert!(
                why.contains("never sent") && !why.contains("SECRET"),
                "{why}"
            );
        }
        assert!(
            parse_keys(&[("token", &jwt("prometheus"))]).is_ok(),
            "another issuer's"
        );
    }

    #[test]
    fn an_error_names_the_key_and_contains_no_value() {
        for (data, expected) in [
            (&[("username", "SECRET")][..], "lacks the key password"),
            (&[("password", "SECRET")], "lacks the key username"),
            (&[("tls.key", "SECRET")], "lacks the key tls.crt"),
            (&[("headerValue", "SECRET")], "lacks the key headerName"),
            (
                &[("token", "SECRET"), ("username", "a"), ("password", "b")],
                "has username and token",
            ),
            (
                &[("token", "SECRET\nSECRET")],
                "has a key token that cannot",
            ),
            (
                &[("headerName", "SECRET name"), ("headerValue", "b")],
                "headerName",
            ),
            (&[("Token", "SECRET")], "has none of the keys"),
            (&[], "has none of the keys"),
        ] {
            let why = parse_keys(data).err().expect(expected);
            assert!(
                why.contains(expected) && !why.contains("SECRET"),
                "{expected}: {why}"
            );
        }
    }
}
