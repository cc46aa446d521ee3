//! The Mixline client: it gives applications a network interface, `.anon` names and a
//! command line, and leaves anonymity to the endpoint beneath.
