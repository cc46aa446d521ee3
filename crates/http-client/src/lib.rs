//! Requests to one server over plain HTTP, bounded in time and in the size of what comes back.
//!
//! A [`Server`] is where to ask, a [`Request`] what, and an [`Answer`] the beginning of what comes back,
//! whose body is read up to a bound that the caller sets. How long each part may take is a
//! [`Patience`]. What goes wrong is a [`Failure`], which fits on one line, and which says whether the
//! server may have had the request.
//!
//! There are no redirects and no proxies: both lead elsewhere than the configuration says. There is no
//! TLS: what is asked for here is signed, or is asked for within one machine or one private network.
//!
//! A connection is kept for the next request, and may be dead by then without anybody saying so: a
//! firewall has forgotten it, or this machine has another address. So an answer to a request that may
//! be repeated has to begin soon on a kept connection, or else it is asked again on a fresh one. Whether
//! it may be repeated is said by the caller ([`Request::once`]).
//!
//! ```
//! use mixline_http_client::{Failure, Request, Server};
//!
//! async fn version(server: &Server) -> Result<Vec<u8>, Failure> {
//!     let answer = server.ask(Request::get("version")).await?;
//!     answer.body(1024).await
//! }
//! ```

mod connector;
mod failure;
mod patience;
mod request;
mod server;
mod url;

pub use failure::{Failure, one_line};
pub use hyper::body::Bytes;
pub use hyper::{Method, StatusCode, header};
pub use patience::Patience;
pub use request::Request;
pub use server::{Answer, Server};
pub use url::UrlError;
