//! Credentials for Prometheus, read from a Secret.
//!
//! In: a Secret's keys. Out: a [`PrometheusAuth`], or which key is wrong or missing. No error contains a value,
//! and no type here can be printed.

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

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

impl PrometheusAuth {
    /// Reads a Secret's keys.
    pub fn from_secret<'a>(
        data: impl Iterator<Item = (&'a str, &'a [u8])>,
        version: Option<String>,
    ) -> Result<Self, String> {
        let data: std::collections::BTreeMap<&str, &[u8]> = data.collect();
        let has = |key: &str| data.contains_key(key);
        // Half of a pair is a mistake: without this check, the query would be sent without these credentials.
        for (one, other) in KEY_PAIRS {
            let missing = match (has(one), has(other)) {
                (true, false) => other,
                (false, true) => one,
                _ => continue,
            };
            return Err(format!(
                "lacks the key {missing}: {one} and {other} belong together"
            ));
        }
        let methods_present = ["username", "token", "headerName"].map(|key| (key, has(key)));
        let methods: Vec<&str> = methods_present
            .iter()
            .filter(|(_, has)| *has)
            .map(|(key, _)| *key)
            .collect();
        if let [one, other, ..] = methods[..] {
            return Err(format!(
                "has {one} and {other}: remove one of them, because only one can authenticate the request"
            ));
        }
        let text = |key: &str| -> Result<String, String> {
            let bytes = data.get(key).copied().unwrap_or_default();
            let text = std::str::from_utf8(bytes)
                .map_err(|_| format!("has a key {key} that is not text"))?;
            // Files often end with a newline, which a header value cannot contain.
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        };
        let mut hidden = Vec::new();
        for key in ["password", "token", "headerValue"] {
            let value = text(key)?;
            if value.split([' ', ',']).any(is_service_account_token) {
                return Err(format!(
                    "has a service account's token in the key {key}, which is never sent: use a credential that \
                     only Prometheus accepts"
                ));
            }
            hidden.extend(Some(value).filter(|value| !value.is_empty()));
        }
        let header = match methods.first() {
            Some(&"username") => {
                let credentials = format!("{}:{}", text("username")?, text("password")?);
                let credentials = BASE64_STANDARD.encode(credentials);
                hidden.push(credentials.clone());
                Some((
                    AUTHORIZATION,
                    sensitive_header("password", &format!("Basic {credentials}"))?,
                ))
            }
            Some(&"token") => {
                let token = format!("Bearer {}", text("token")?);
                Some((AUTHORIZATION, sensitive_header("token", &token)?))
            }
            Some(_) => {
                let name = text("headerName")?.parse();
                let name: HeaderName = name.map_err(|_| {
                    "has a key headerName that is not a valid header name".to_owned()
                })?;
                Some((
                    name,
                    sensitive_header("headerValue", &text("headerValue")?)?,
                ))
            }
            None => None,
        };
        let pem = |key: &str| data.get(key).map(|bytes| bytes.to_vec());
        let identity = pem("tls.crt")
            .zip(pem("tls.key"))
            .map(|(mut certificate, key)| {
                certificate.push(b'\n');
                certificate.extend(key);
                certificate
            });
        let auth = Self {
            header,
            client_certificate: identity,
            ca: pem("ca.crt"),
            version,
            secrets: hidden,
        };
        // A Secret without any of these keys is probably the wrong one, or a key is misspelled.
        if auth.header.is_none() && auth.client_certificate.is_none() && auth.ca.is_none() {
            return Err("has none of the keys username and password, token, headerName and headerValue, tls.crt and tls.key, ca.crt".to_owned());
        }
        Ok(auth)
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
