//! Digests of manifests, configurations and layers.
//!
//! In: `sha256:` and 64 hexadecimal digits, or bytes. Out: a digest that can be compared. Pure.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. The OCI specification registers SHA-512 too, but registries answer with SHA-256 only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl FromStr for ImageDigest {
    type Err = &'static str;

    /// Parses the form of the OCI image specification: the hexadecimal digits are lower-case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a digest is sha256: and 64 lower-case hexadecimal digits";
        let digits = text.strip_prefix("sha256:").ok_or(WRONG)?.as_bytes();
        let mut digest = [0; 32];
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(WRONG);
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(WRONG),
        };
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_it_is_read() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: ImageDigest = text.parse().expect(text);
        assert_eq!(digest, ImageDigest::of(b""));
        assert_eq!(digest.to_string(), text);
    }

    #[test]
    fn other_digests_are_refused() {
        let long = format!("sha256:{}", "a".repeat(66));
        let upper = format!("sha256:{}", "A".repeat(64));
        let sha512 = format!("sha512:{}", "a".repeat(128));
        for text in ["", "sha256:", "sha256:ab", &long, &upper, &sha512, "é"] {
            assert!(text.parse::<ImageDigest>().is_err(), "{text}");
        }
    }
}
