//! HCTR2.

/// HCTR2-AES-256 under one key.
pub struct Hctr2;

impl Hctr2 {
    /// Expands a key.
    #[must_use]
    pub fn new(_key: &[u8; 32]) -> Self {
        todo!()
    }
    /// Encrypts at least 16 bytes in place.
    pub fn encrypt(&self, _tweak: &[u8; 16], _message: &mut [u8]) {
        todo!()
    }
    /// Decrypts at least 16 bytes in place.
    pub fn decrypt(&self, _tweak: &[u8; 16], _message: &mut [u8]) {
        todo!()
    }
}
