//! Repeating a `POST` safely.

/// An `Idempotency-Key` and the digest of the payload that it came with. Kept for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotent {
    /// The key, at most 255 characters.
    pub key: String,
    /// SHA-256 of the payload, in hexadecimal digits.
    pub payload: String,
}
