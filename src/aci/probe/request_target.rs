//! The request target of an HTTP probe.
//!
//! In: `httpGet.path` as the pod has it. Out: the path and query of the request, as the kubelet sends them
//! (`formatURL` of `pkg/probe/http/request.go`, which uses Go's `net/url`). Pure.

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What Go escapes in a path: everything but letters, digits and `-_.~$&+,/:;=@`.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// What a request target must not contain. Go sends a query as it is; most servers refuse these bytes anyway.
const FORBIDDEN: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// The path and query of the request for `path`. The error says why there is none.
///
/// A scheme, a host or a fragment in `path` is dropped. A path with characters that need escapes is escaped; one
/// with an invalid escape is taken literally, including its question mark.
pub(super) fn request_target(path: &str) -> Result<PathAndQuery, String> {
    let whole = path;
    let (path, _) = path.split_once('#').unwrap_or((path, ""));
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let path = without_authority(path)?;
    let mut target = match escaped(path) {
        Some(path) => path,
        None => utf8_percent_encode(whole, ESCAPED).to_string(),
    };
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    if let Some(query) = query.filter(|_| escaped(path).is_some()) {
        target.push('?');
        target.extend(utf8_percent_encode(query, FORBIDDEN));
    }
    let target: Result<PathAndQuery, _> = target.try_into();
    target.map_err(|error| format!("'{whole}' is no path of a URL: {error}"))
}

/// The part of a URL after its scheme and authority.
fn without_authority(path: &str) -> Result<&str, String> {
    let first = path.split('/').next().unwrap_or_default();
    let rest = match first.split_once(':') {
        Some((_, "")) => &path[first.len()..],
        Some(_) => return Err(format!("'{path}' has a colon before its first slash")),
        None => path,
    };
    Ok(match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => rest,
    })
}

/// The path with its escapes, or `None` if it has an invalid one.
fn escaped(path: &str) -> Option<String> {
    let mut after = path.split('%').skip(1);
    let is_hex = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !after.all(is_hex) {
        return None;
    }
    // Go keeps a path that is escaped completely.
    let is_kept = |c: char| c.is_ascii_alphanumeric() || "-_.~$&+,/:;=@!'()*[]%".contains(c);
    if path.chars().all(is_kept) {
        return Some(path.to_owned());
    }
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    Some(percent_encoding::percent_encode(&bytes, ESCAPED).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server saw of probes that Kubernetes 1.37 sent (`httpprobe.NewRequestForHTTPGetAction`, `Probe`).
    #[test]
    fn a_path_becomes_the_request_target_that_the_kubelet_sends() {
        for (path, seen) in [
            ("", "/"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/a b", "/a%20b"),
            ("/ä", "/%C3%A4"),
            ("/%zz?x=1", "/%25zz%3Fx=1"),
            ("/a%20b", "/a%20b"),
            ("/a/../b", "/a/../b"),
            ("//foo/bar", "/bar"),
            ("?foo", "/?foo"),
            ("/x#frag", "/x"),
            ("/x?y#frag", "/x?y"),
            ("http://evil/x", "/x"),
            ("/a|b{c}", "/a%7Cb%7Bc%7D"),
            ("/a%2Fb", "/a%2Fb"),
            ("/[x]", "/[x]"),
            ("/x?%zz", "/x?%zz"),
            ("/a\"b", "/a%22b"),
            ("/a;b,c!d*e(f)'g$h&i=j:k@l~m", "/a;b,c!d*e(f)'g$h&i=j:k@l~m"),
            ("/x?", "/x?"),
            ("/a^b`c\\d", "/a%5Eb%60c%5Cd"),
            ("/a%2fb c", "/a/b%20c"),
        ] {
            let target = request_target(path).expect(path);
            assert_eq!(target.as_str(), seen, "{path}");
        }
        // The kubelet sends the blank and the letter as they are, and Go's server answers with 400.
        let target = request_target("/x?a=b c&d=ä").expect("a target");
        assert_eq!(target.as_str(), "/x?a=b%20c&d=%C3%A4");
        // The kubelet: "http: no Host in request URL".
        assert!(request_target("foo:bar/x").is_err());
    }
}
