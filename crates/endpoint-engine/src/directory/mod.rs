//! What is known of the directory, and asked of it.

pub mod descriptors;
pub mod pending;
pub mod pseudonyms;
pub mod publication;
