//! Scripts of web pages: a browser gives them an answer of another server only if that server names their origin (CORS,
//! Fetch standard, section 3.2).

use hyper::Response;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue,
    ORIGIN, VARY,
};
use hyper::http::request::Parts;

/// Headers of an answer that a script may read beside the usual ones.
const EXPOSED: HeaderValue = HeaderValue::from_static("x-acs-request-id, Retry-After, x-acs-retry-after");
/// Seconds for which a browser remembers what it may send.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// The origins whose scripts may read answers; none by default.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<String>);

impl Origins {
    /// `https://console.example.com`; `*` is every origin.
    pub fn new(origins: Vec<String>) -> Origins {
        Origins(origins)
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Adds what a browser needs to see.
    pub fn mark<B>(&self, request: &Parts, response: &mut Response<B>) {
        if !self.any() {
            return;
        }
        let out = response.headers_mut();
        // Caches keep the answers for several origins apart.
        out.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.headers.get(ORIGIN) else { return };
        if !self.0.iter().any(|o| o == "*" || o.as_bytes() == origin.as_bytes()) {
            return;
        }
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if request.method == hyper::Method::OPTIONS {
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            out.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED);
            // A signature decides about a call, not its headers.
            if let Some(names) = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                out.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(origins: &[&str], method: &str, origin: &str) -> Response<()> {
        let origins = Origins::new(origins.iter().map(|o| (*o).to_owned()).collect());
        let request = hyper::Request::builder().method(method).header("origin", origin);
        let request = request.header("access-control-request-headers", "authorization,x-acs-date");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let mut response = Response::new(());
        origins.mark(&parts, &mut response);
        response
    }

    #[test]
    fn origins_that_are_named_may_read() {
        let shown = |r: &Response<()>| r.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
        let page = "https://console.example.com";
        assert_eq!(shown(&marked(&[page], "POST", page)).expect("allowed"), page);
        assert_eq!(shown(&marked(&["*"], "GET", page)).expect("allowed"), page);
        assert_eq!(shown(&marked(&[page], "POST", "https://console.example.com.evil.test")), None);
        let none = marked(&[], "POST", page);
        assert!(none.headers().is_empty(), "{none:?}");
        let asked = marked(&[page], "OPTIONS", page);
        assert_eq!(asked.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "authorization,x-acs-date");
        assert_eq!(asked.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST");
    }
}
