//! Addresses of servers.

use hyper::http::uri::{Authority, InvalidUri, Scheme, Uri};

/// Why an address is not that of a server.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is no URL at all.
    #[error(transparent)]
    Form(#[from] InvalidUri),
    /// It has another scheme, or none.
    #[error("not an http address (https is not spoken here)")]
    NotHttp,
    /// It names a user: nobody has an account there.
    #[error("it names a user, and there are none")]
    User,
    /// There is no such port.
    #[error("invalid port number")]
    Port,
}

/// Where a server is: `http://authority/path/`.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    authority: Authority,
    /// With a slash at both ends.
    path: String,
}

impl Place {
    /// Reads `http://host[:port][/path]`.
    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        let uri: Uri = url.trim().parse()?;
        let parts = uri.into_parts();
        let http = parts.scheme == Some(Scheme::HTTP);
        let authority = parts.authority.filter(|_| http).ok_or(UrlError::NotHttp)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let port = authority.as_str().strip_prefix(authority.host());
        let port = port.and_then(|port| port.strip_prefix(':'));
        if port.is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
            return Err(UrlError::Port);
        }
        let path = parts.path_and_query.as_ref().map_or("/", |p| p.path());
        let path = format!("{}/", path.trim_end_matches('/'));
        Ok(Self { authority, path })
    }

    /// The address, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        let url = format!("http://{}{}", self.authority, self.path);
        url.trim_end_matches('/').to_owned()
    }

    /// The name or IP address, that of IPv6 without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.host();
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        bare.unwrap_or(host)
    }

    /// What is at `path` below it.
    pub(crate) fn below(&self, path: &str) -> Result<Uri, hyper::http::Error> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.path))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, url, below) in [
            ("http://a", "http://a", "http://a/v1/x?y=1"),
            (" http://a:80/ ", "http://a:80", "http://a:80/v1/x?y=1"),
            (
                "http://[::1]:8/p/q/",
                "http://[::1]:8/p/q",
                "http://[::1]:8/p/q/v1/x?y=1",
            ),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.url(), url);
            assert!(["a", "::1"].contains(&place.host()));
            assert_eq!(place.below("v1/x?y=1").unwrap().to_string(), below);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let refused = |text: &str| Place::parse(text).unwrap_err();
        assert!(matches!(refused("https://a"), UrlError::NotHttp));
        assert!(matches!(refused("a:8080"), UrlError::NotHttp));
        assert!(matches!(refused("http://me@a"), UrlError::User));
        assert!(matches!(refused("http://a:65536"), UrlError::Port));
        assert!(matches!(refused(""), UrlError::Form(_)));
    }
}
