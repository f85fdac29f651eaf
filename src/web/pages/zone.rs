//! The zone in which a browser sees times: it is kept in a cookie, and a form in the header of every page changes it.

use footfall_core::query_string::{QueryString, pairs};
use rocket::http::uri::Origin;
use rocket::http::{Header, Method};
use rocket::post;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::Redirect;
use utoipa::ToSchema;

use super::form::FormHead;
use crate::base_path::base_path;
use crate::bounds::TARGET_BYTES;
use crate::web::body::RequestBody;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query;
use crate::web::views::{Bound, Zone, cut, explicit};

/// The name of the cookie. `time.js` writes it too.
const COOKIE: &str = "zone";
/// How long a browser keeps it: a year.
const MAX_AGE_SECONDS: u32 = 365 * 24 * 3600;
/// Most bytes of the form: percent-encoding makes three of each byte of an address.
const FORM_BYTES: usize = 4 * TARGET_BYTES;
/// Most characters of a wrong name in the answer.
const SHOWN_CHARS: usize = 64;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Zone {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(chosen(request).unwrap_or_default())
    }
}

/// Returns the zone in the cookie of a request, if it is one.
pub fn chosen(request: &Request<'_>) -> Option<Zone> {
    super::cookie(request, COOKIE).and_then(Zone::parse)
}

/// Path and query of a page as the browser requested it, to come back to it from the form. A page that answers a form has
/// no address to come back to.
pub fn here(request: &Request<'_>) -> String {
    match request.method() {
        Method::Get | Method::Head => format!("{}{}", base_path(), request.uri()),
        _ => format!("{}/", base_path()),
    }
}

/// Returns the query with `since` and `until` in UTC, if one of them has no zone: it means that of the page, so that an
/// address means the same to everybody. The parameter `zone` has the zone of the page, if that is not in the cookie.
pub fn explicit_times(parameters: &QueryString, zone: &Zone) -> Result<Option<String>, Problem> {
    let named = parameters.get("zone").map(parse).transpose()?;
    let zone = named.as_ref().unwrap_or(zone);
    let read = |name, bound| parameters.get(name).and_then(|text| zone.read(text, bound)).map(explicit);
    let (since, until) = (read("since", Bound::Since), read("until", Bound::Until));
    let replaced = [("zone", named.is_some().then(String::new)), ("since", since), ("until", until)];
    let replaced: Vec<(&str, &str)> =
        replaced.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    Ok((!replaced.is_empty()).then(|| parameters.with(&replaced)))
}

fn parse(name: &str) -> Result<Zone, Problem> {
    let detail = || {
        let expected = "must be UTC, the name of a time zone such as Europe/Berlin, or an offset such as +05:30";
        format!("{expected}, not \"{}\"", cut(name, SHOWN_CHARS))
    };
    Zone::parse(name.trim()).ok_or_else(|| query::bad("zone", detail()))
}

/// The form in the header of every page.
#[derive(Default, ToSchema)]
#[schema(as = ZoneForm)]
struct Typed {
    /// `UTC`, the name of a time zone of the IANA database, or an offset such as `+05:30`.
    #[schema(example = "Europe/Berlin")]
    zone: String,
    /// Path and query of the page that follows.
    #[schema(required = false)]
    back: String,
}

impl Typed {
    /// Reads a form; the last of several values counts, and bytes that are not UTF-8 are replaced.
    fn read(form: &[u8]) -> Self {
        let mut typed = Typed::default();
        for [name, value] in pairs(form) {
            let value = value.unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            match name.as_deref() {
                Ok("zone") => typed.zone = value,
                Ok("back") => typed.back = value,
                _ => {}
            }
        }
        typed
    }

    /// The page that follows: the one that was left, if it is one of ours.
    fn next(self) -> String {
        let path = self.back.strip_prefix(base_path()).unwrap_or_default();
        // Browsers read `//host` and `/\host` as the address of another host.
        let is_own = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
        let is_address = self.back.len() <= TARGET_BYTES && Origin::parse(&self.back).is_ok();
        if is_own && is_address { self.back } else { format!("{}/", base_path()) }
    }
}

/// The redirect to the page that was left, with the cookie.
#[derive(rocket::Responder)]
pub struct Chosen {
    next: Redirect,
    cookie: Header<'static>,
}

/// Chooses the zone of all pages
///
/// Keeps it in the cookie `zone` for a year.
#[utoipa::path(
    operation_id = "chooseZone",
    tag = "pages",
    request_body(
        content = Typed,
        content_type = "application/x-www-form-urlencoded",
        example = json!({"zone": "Europe/Berlin", "back": "/history"}),
    ),
    responses(
        (
            status = 303,
            description = "To the page of `back`, or to the live page.",
            headers(("Location" = String), ("Set-Cookie" = String)),
        ),
        openapi::BadParameter,
        openapi::UnsupportedType,
    )
)]
#[post("/zone")]
pub fn choose(head: FormHead, body: RequestBody<'_>) -> Result<Chosen, Problem> {
    head.expect_encoded("")?;
    let typed = Typed::read(&body.read(FORM_BYTES)?);
    let zone = parse(&typed.zone)?;
    let (name, path) = (zone.name(), if base_path().is_empty() { "/" } else { base_path() });
    let cookie = format!("{COOKIE}={name}; Path={path}; Max-Age={MAX_AGE_SECONDS}; SameSite=Lax");
    Ok(Chosen { next: Redirect::to(typed.next()), cookie: Header::new("Set-Cookie", cookie) })
}
