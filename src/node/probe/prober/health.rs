//! The two messages of `grpc.health.v1.Health/Check`.
//!
//! In: the name of a service; the body of an answer. Out: the body of the request; the status. Pure. The messages
//! have one field each (`grpc/health/v1/health.proto`): field 1 of the request is the string `service`, field 1 of
//! the answer is the enum `status`. In a body, each is preceded by a byte that says whether it is compressed and by
//! its length in four bytes.

/// The path of the call.
pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of the enum `ServingStatus`.
pub(super) const SERVING: u64 = 1;

/// The name of a status, or its number if it has none.
pub(super) fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        1 => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// The body of a request for the status of `service`.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut body = vec![0];
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&message);
    body
}

/// The status in the body of an answer; `None` if the body cannot be decoded.
pub(super) fn status(body: &[u8]) -> Option<u64> {
    let (head, message) = body.split_at_checked(5)?;
    let (is_compressed, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *is_compressed != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => {
                varint(&mut rest)?;
            }
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = varint(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_service_and_is_empty_without_one() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 2]);
    }

    #[test]
    fn the_status_is_read_among_fields_that_are_not_known() {
        for (message, known) in [
            (&[][..], Some(0)),
            (&[0x08, 1], Some(1)),
            (&[0x08, 2], Some(2)),
            // Field 2: text; field 3: eight bytes; field 4: four bytes; field 5: a number.
            (&[0x12, 1, b'x', 0x08, 3], Some(3)),
            (&[0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 1], Some(1)),
            (&[0x25, 1, 2, 3, 4, 0x28, 0x80, 1, 0x08, 1], Some(1)),
            (&[0x08], None),
            (&[0x12, 9, b'x'], None),
            (&[0x0b, 1], None),
        ] {
            let mut body = vec![
                0,
                0,
                0,
                0,
                u8::try_from(message.len()).expect("it is short"),
            ];
            body.extend_from_slice(message);
            assert_eq!(status(&body), known, "{message:?}");
        }
        assert_eq!(status(&[1, 0, 0, 0, 2, 0x08, 1]), None, "compressed");
        assert_eq!(status(&[0, 0, 0, 0, 3, 0x08, 1]), None, "cut off");
        assert_eq!(status(b"<html>"), None);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = status(&body);
        }
    }
}
