//! One span as an OTLP `ExportTraceServiceRequest` in protobuf (opentelemetry-proto,
//! collector/trace/v1 and trace/v1), encoded by hand: eight fields do not pay for a code generator.

/// A root span.
pub struct Span<'a> {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub span_id: [u8; 8],
    /// What was done.
    pub name: &'a str,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Attributes with text values.
    pub attributes: &'a [(&'a str, &'a str)],
}

/// The request's body, for `Content-Type: application/x-protobuf`.
pub fn export_request(service: &str, span: &Span<'_>) -> Vec<u8> {
    let resource = message(1, &key_value("service.name", service));
    let mut body = Vec::new();
    body.extend(message(1, &span.trace_id));
    body.extend(message(2, &span.span_id));
    body.extend(message(5, span.name.as_bytes()));
    body.extend(fixed64(7, span.start));
    body.extend(fixed64(8, span.end));
    for (key, value) in span.attributes {
        body.extend(message(9, &key_value(key, value)));
    }
    let scope_spans = message(2, &body);
    let resource_spans = [message(1, &resource), message(2, &scope_spans)].concat();
    message(1, &resource_spans)
}

fn key_value(key: &str, value: &str) -> Vec<u8> {
    [message(1, key.as_bytes()), message(2, &message(1, value.as_bytes()))].concat()
}

/// A length-delimited field: bytes, text or message (protobuf wire type 2).
fn message(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A fixed64 field (protobuf wire type 1).
fn fixed64(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend_from_slice(&value.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_varints() {
        for (length, expected) in
            [(0, &[0x0a, 0][..]), (127, &[0x0a, 127]), (128, &[0x0a, 0x80, 1]), (300, &[0x0a, 0xac, 2])]
        {
            assert_eq!(&message(1, &vec![7; length])[..expected.len()], expected);
        }
    }

    #[test]
    fn a_request_is_what_google_protobuf_writes() {
        let span = Span { trace_id: [1; 16], span_id: [2; 8], name: "n", start: 3, end: 4, attributes: &[("k", "v")] };
        let found: String = export_request("s", &span).iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "0a560a150a130a0c736572766963652e6e616d6512030a0173123d123b0a100101010101010101010101010101",
            "0101120802020202020202022a016e3903000000000000004104000000000000004a080a016b12030a0176"
        );
        assert_eq!(found, expected);
    }
}
