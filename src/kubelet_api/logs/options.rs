//! The options of a log request.
//!
//! In: a query. Out: [`PodLogOptions`], or an error message. Pure.

use jiff::{SignedDuration, Timestamp};

/// The options of a log request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLogOptions {
    /// Whether to follow the log.
    pub follow: bool,
    /// Whether to return the previous run's log.
    pub previous: bool,
    /// Whether each line has its timestamp in front.
    pub timestamps: bool,
    /// Only this many lines, from the end.
    pub tail_lines: Option<usize>,
    /// Only lines since this time.
    pub since: Option<Timestamp>,
    /// The maximum number of bytes.
    pub limit_bytes: Option<usize>,
}

impl PodLogOptions {
    /// Whether the log must be read with timestamps.
    pub fn needs_timestamps(&self) -> bool {
        self.timestamps || self.since.is_some()
    }
}

/// Reads a query, as a kubelet does; ignores unknown parameters.
pub fn parse(query: &str, now: Timestamp) -> Result<PodLogOptions, String> {
    let mut options = PodLogOptions::default();
    let mut sinces = 0;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let (key, value) = (&*key, &*value);
        match key {
            "follow" => options.follow = parse_bool(value),
            "previous" => options.previous = parse_bool(value),
            "timestamps" => options.timestamps = parse_bool(value),
            "tailLines" => options.tail_lines = Some(parse_number(key, value, 0)?),
            "limitBytes" => options.limit_bytes = Some(parse_number(key, value, 1)?),
            "sinceSeconds" => {
                let seconds = i64::try_from(parse_number(key, value, 1)?).unwrap_or(i64::MAX);
                let since = now.checked_sub(SignedDuration::from_secs(seconds));
                options.since = Some(since.unwrap_or(Timestamp::MIN));
                sinces += 1;
            }
            "sinceTime" => {
                let invalid = |_| format!("sinceTime: {value} is not a time: use RFC 3339");
                options.since = Some(value.parse().map_err(invalid)?);
                sinces += 1;
            }
            "stream" if !matches!(value, "All" | "") => {
                return Err(format!(
                    "stream: {value} is not available: ACI keeps stdout and stderr in one log; use All"
                ));
            }
            // insecureSkipTLSVerifyBackend is for the API server; ignore other parameters, too.
            _ => {}
        }
    }
    if sinces > 1 {
        return Err("at most one of sinceTime and sinceSeconds may be given".to_owned());
    }
    Ok(options)
}

fn parse_bool(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

fn parse_number(key: &str, value: &str, min: usize) -> Result<usize, String> {
    let parsed = value.parse().ok().filter(|n| *n >= min);
    parsed.ok_or_else(|| format!("{key}: {value} must be a number of at least {min}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_parsed_as_by_a_kubelet() {
        let now = Timestamp::from_second(1000).expect("a time");
        let query =
            "follow=true&previous=false&timestamps=&tailLines=0&sinceSeconds=60&limitBytes=9";
        let options = parse(query, now).expect("options");
        let wanted = PodLogOptions {
            follow: true,
            previous: false,
            timestamps: true,
            tail_lines: Some(0),
            since: Timestamp::from_second(940).ok(),
            limit_bytes: Some(9),
        };
        assert_eq!(options, wanted);
        assert_eq!(parse("", now), Ok(PodLogOptions::default()));
        let time = parse("sinceTime=1970-01-01T00:00:01%2B00:00", now).expect("options");
        assert_eq!(time.since, Timestamp::from_second(1).ok());
    }

    #[test]
    fn errors_name_the_parameter() {
        for (query, field) in [
            ("tailLines=-1", "tailLines"),
            ("limitBytes=0", "limitBytes"),
            ("sinceSeconds=0", "sinceSeconds"),
            ("sinceTime=yesterday", "sinceTime"),
            ("sinceTime=1970-01-01T00:00:01Z&sinceSeconds=1", "sinceTime"),
            ("stream=Stderr", "stream"),
        ] {
            let mistake = parse(query, Timestamp::UNIX_EPOCH).expect_err("a mistake");
            assert!(mistake.contains(field), "{mistake}");
        }
    }
}
