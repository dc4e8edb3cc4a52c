//! Any text as one of the locks: what is read is written and read again the same, or refused.
#![no_main]

use mlflow_image::Digest;
use mlflow_image::lock::{DebianLock, Header, ImageLock, Requirements};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let header = Header::parse("lock", text);
    if let Ok(lock) = Requirements::parse("lock", text) {
        let header = header.unwrap_or(Header { set: "server".to_owned(), inputs: Digest::of("") });
        let written = lock.to_text(&header);
        assert_eq!(Requirements::parse("lock", &written).expect("what was written"), lock);
        assert_eq!(Header::parse("lock", &written).expect("what was written"), header);
    }
    if let Ok(lock) = DebianLock::parse("lock", text) {
        assert_eq!(DebianLock::parse("lock", &lock.to_text()).expect("what was written"), lock);
    }
    if let Ok(lock) = ImageLock::parse("lock", text) {
        assert_eq!(ImageLock::parse("lock", &lock.to_text()).expect("what was written"), lock);
    }
});
