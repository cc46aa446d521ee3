//! What is known of the directory, and asked of it.

pub(crate) mod descriptors;
pub(crate) mod own_versions;
pub(crate) mod pending;
pub(crate) mod pseudonyms;
pub(crate) mod publication;
pub(crate) mod said_time;
pub(crate) mod unreachable;
