//! What the client changes and reads of the host's network, by netlink: addresses of its
//! own interface, one route, and a look at the routes of others. The default route is
//! never touched.

pub mod interface;
pub mod netlink;
pub mod routes;
