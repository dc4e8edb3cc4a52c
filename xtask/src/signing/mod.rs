//! Signatures of images: made and verified by cosign (sigstore), which has the cryptography, the log and the
//! keys' services; here is how it is called, what its answers mean, and what is read of what it attaches.
//!
//! What is signed is a digest, never a tag. cosign 3 attaches a bundle to it as a referrer, a new one for
//! each signature, so that whoever signs looks first whether the image has the signature already.

mod args;
mod bundle;
mod check;
mod cosign;
mod sign;

pub use args::SignArgs;
pub use bundle::{Bundle, is_bundle};
pub use check::{Verdict, check};
pub use cosign::{Cosign, PASSWORD};
pub use sign::{Signed, after_push};
