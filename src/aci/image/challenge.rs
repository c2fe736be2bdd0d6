//! The challenge of a registry: how a client must authenticate.
//!
//! In: the values of the header `WWW-Authenticate` of an answer with status 401. Out: the challenge that the client
//! answers. Pure. The crate `http-auth` parses the header.

/// A challenge that a registry's client can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChallenge {
    /// Requests need a token, which the endpoint `realm` issues.
    Bearer {
        /// The URL of the endpoint. The registry chooses it, so that it needs a check before it is requested.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
        /// What the token must permit, such as `repository:library/nginx:pull`.
        scope: Option<String>,
    },
    /// Requests need a username and a password.
    Basic,
}

/// The longest header that is parsed, in bytes. Real ones have less than 300.
const MAX_CHALLENGE_LENGTH: usize = 8 << 10;

impl RegistryChallenge {
    /// The challenge to answer, of those in the headers: Bearer if there is one, else Basic. `None` if there is
    /// neither, or if the headers cannot be parsed.
    pub fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for challenge in parse(header) {
                match challenge {
                    Self::Bearer { .. } => return Some(challenge),
                    Self::Basic => basic = Some(challenge),
                }
            }
        }
        basic
    }
}

/// The challenges of one header that have a supported scheme and the parameters that it needs.
fn parse(header: &str) -> Vec<RegistryChallenge> {
    let header = header.trim();
    if header.len() > MAX_CHALLENGE_LENGTH {
        return Vec::new();
    }
    // The grammar demands a parameter, and some registries send none.
    if header.eq_ignore_ascii_case("basic") {
        return vec![RegistryChallenge::Basic];
    }
    let Ok(challenges) = http_auth::parse_challenges(header) else {
        return Vec::new();
    };
    challenges.iter().filter_map(supported_challenge).collect()
}

fn supported_challenge(challenge: &http_auth::ChallengeRef<'_>) -> Option<RegistryChallenge> {
    let parameter = |name: &str| {
        let mut parameters = challenge.params.iter();
        let found = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| value.to_unescaped())
            .filter(|value| !value.is_empty())
    };
    if challenge.scheme.eq_ignore_ascii_case("bearer") {
        return Some(RegistryChallenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        });
    }
    let is_basic = challenge.scheme.eq_ignore_ascii_case("basic");
    is_basic.then_some(RegistryChallenge::Basic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> RegistryChallenge {
        RegistryChallenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    /// Realm, service and scope.
    type Parts = (&'static str, Option<&'static str>, Option<&'static str>);

    /// Headers, and their parts.
    const BEARER: [(&str, Parts); 6] = [
        (
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
            (
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/nginx:pull"),
            ),
        ),
        (
            r#"Bearer realm="https://shop.azurecr.io/oauth2/token",service="shop.azurecr.io",scope="repository:web:pull",error="invalid_token""#,
            (
                "https://shop.azurecr.io/oauth2/token",
                Some("shop.azurecr.io"),
                Some("repository:web:pull"),
            ),
        ),
        (
            r#"bearer Realm="https://a.io/t", SERVICE="a""#,
            ("https://a.io/t", Some("a"), None),
        ),
        (
            r#"Bearer realm="https://a.io/t",service="",scope="""#,
            ("https://a.io/t", None, None),
        ),
        (
            r#"Bearer realm="https://a.io/a,b",service="x \"y\"""#,
            ("https://a.io/a,b", Some("x \"y\""), None),
        ),
        (
            r#"Basic realm="a", Bearer realm="https://a.io/t""#,
            ("https://a.io/t", None, None),
        ),
    ];
    /// Headers that ask for a user name and a password.
    const BASIC: [&str; 4] = [
        r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
        r#"BASIC realm="Sonatype Nexus""#,
        "Basic",
        r#"Negotiate realm="a", Basic realm="b""#,
    ];

    #[test]
    fn challenges_of_known_registries_are_understood() {
        for (header, expected) in BEARER {
            let (realm, service, scope) = expected;
            let expected = Some(bearer(realm, service, scope));
            assert_eq!(RegistryChallenge::choose([header]), expected, "{header}");
        }
        for header in BASIC {
            let chosen = RegistryChallenge::choose([header]);
            assert_eq!(chosen, Some(RegistryChallenge::Basic), "{header}");
        }
        let several = [r#"Basic realm="a""#, r#"Bearer realm="https://a.io/t""#];
        assert_eq!(
            RegistryChallenge::choose(several),
            Some(bearer("https://a.io/t", None, None))
        );
    }

    #[test]
    fn what_is_no_known_challenge_is_ignored() {
        let long = format!(
            r#"Bearer realm="https://a.io/{}""#,
            "a".repeat(MAX_CHALLENGE_LENGTH)
        );
        for header in [
            "",
            "Bearer",
            r#"Bearer service="a""#,
            r#"Bearer realm="""#,
            "Digest realm=a",
            "\u{7f}",
            &long,
        ] {
            assert_eq!(RegistryChallenge::choose([header]), None, "{header}");
        }
        assert_eq!(RegistryChallenge::choose([]), None);
    }
}
