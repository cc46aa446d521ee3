//! hctr2
