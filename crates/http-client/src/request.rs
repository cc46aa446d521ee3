//! What is asked.

use http_body_util::Full;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::failure::{Failure, failure};
use crate::url::Place;

/// What is asked of a server.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    repeatable: bool,
}

impl Request {
    /// A request for what is at `path` (with its query, if any) below the server's address. It may be
    /// repeated; see [`Request::once`].
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        Self {
            method,
            path: path.into(),
            headers,
            body: Bytes::new(),
            repeatable: true,
        }
    }

    /// A GET of what is at `path`.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A POST of bytes to `path`.
    #[must_use]
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let binary = HeaderValue::from_static("application/octet-stream");
        let mut request = Self::new(Method::POST, path).header(CONTENT_TYPE, binary);
        request.body = body.into();
        request
    }

    /// A POST of encoded JSON to `path`.
    #[must_use]
    pub fn post_json(path: impl Into<String>, json: impl Into<Bytes>) -> Self {
        let media = HeaderValue::from_static("application/json");
        Self::post(path, json).header(CONTENT_TYPE, media)
    }

    /// With this header, in place of one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Is sent at most once: for what must not happen twice. On a kept connection that turns out to be
    /// dead it fails, and whether the server has had it is not known.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// As hyper sends it to the server at `place`.
    pub(crate) fn to(&self, place: &Place) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let uri = place.below(&self.path).map_err(|error| failure(&error))?;
        let mut request = hyper::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}
