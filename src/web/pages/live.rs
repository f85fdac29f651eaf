//! The live page: the newest events, and the form that sends one.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use rocket::Either;
use rocket::get;
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::Redirect;

use super::strip::Strip;
use super::suggestions::Suggestions;
use super::wrong::separate;
use super::{Base, Html, ROWS, html, to_condition};
use crate::bounds::Address;
use crate::event::EventId;
use crate::event::time::now_ms;
use crate::feed::{Feed, Filter};
use crate::ingest::Ingest;
use crate::limits::HeavyWork;
use crate::recent::Recents;
use crate::rejects::{Rejected, Rejects};
use crate::web::guards;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::Parameters;
use crate::web::views::{BrokerStatus, Listing, PageFrame, Row, RowUser, sentence, thousands};

/// Whether the form is `open` or `closed`. The script sets it; it says nothing of the reader.
const FORM_COOKIE: &str = "footfall-form";

/// How long the page after a form waits for the form's event in memory: the tail is milliseconds behind.
const SENT_WITHIN: Duration = Duration::from_millis(500);

/// The live page, `GET /`, and the answer to a form that was not accepted.
#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    frame: PageFrame,
    listing: Listing,
    suggestions: Suggestions,
    /// `None` if a filter is wrong.
    strip: Option<Strip>,
    /// Newest first.
    rows: Vec<Row>,
    /// The cursor after the newest row: where the live stream takes over.
    cursor: String,
    /// The time of the page, in milliseconds since 1970.
    now_ms: i64,
    form: SendForm,
    rejected: Rejected,
    /// What the browser was redirected with after a form was accepted.
    receipt: Option<Receipt>,
    /// Most milliseconds until the server answers.
    deadline_ms: u128,
    /// Whether the form was open when the reader last saw the page, if the browser says so.
    opened: Option<bool>,
    /// Scheme, authority and base path as the browser used them, for the `curl` line: `http://127.0.0.1:8000`.
    base: String,
}

/// The form with what was typed into it.
#[derive(Default)]
pub struct SendForm {
    pub user: String,
    pub action: String,
    /// JSON, as typed.
    pub details: String,
    /// The id of the event: sending the form again is the same event.
    pub id: String,
    pub errors: Vec<FormError>,
}

/// Why the form was not accepted.
pub struct FormError {
    /// `user`, `action` or `details`; empty if no field is wrong (Kafka unreachable, too many requests).
    pub field: &'static str,
    /// The error, to follow the name of the field: `must be a string`.
    pub detail: String,
}

/// Where the event of an accepted form is in Kafka.
pub struct Receipt {
    pub partition: i32,
    pub offset: i64,
}

impl LivePage {
    fn rejected_count(&self) -> String {
        thousands(self.rejected.count)
    }

    /// Classes of the form: ` open` if it was just sent or the reader left it open, ` first` while there are no events: then
    /// it is open where there is room for it.
    fn form_class(&self) -> &'static str {
        let was_sent = self.receipt.is_some() || !self.form.errors.is_empty();
        if was_sent || self.opened == Some(true) {
            " open"
        } else if self.opened.is_none() && self.rows.is_empty() && self.listing.filters.is_empty() {
            " first"
        } else {
            ""
        }
    }
}

impl FormError {
    /// `Details must be a JSON object`, for the list above the form.
    fn sentence(&self) -> String {
        let mut name = self.field.chars();
        match name.next() {
            Some(first) => format!("{}{} {}", first.to_uppercase(), name.as_str(), self.detail),
            None => sentence(&self.detail),
        }
    }
}

impl SendForm {
    fn is_first_wrong(&self, field: &str) -> bool {
        self.errors.iter().find(|error| !error.field.is_empty()).is_some_and(|error| error.field == field)
    }

    fn error(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.detail.as_str())
    }
}

/// Form and live feed
#[utoipa::path(
    operation_id = "livePage",
    tag = "pages",
    params(openapi::Filter, openapi::Columns, openapi::TypedCondition),
    responses(
        openapi::Html,
        (status = 303, description = "To the page with `field`, `op` and `value` as `f`.", headers(("Location" = String))),
        openapi::BadParameter,
    )
)]
#[get("/")]
pub async fn page(parts: LiveParts<'_>, parameters: Parameters) -> Result<Either<Redirect, Html>, Problem> {
    parameters.filters()?;
    parameters.columns()?;
    if let Some(to) = to_condition("/", &parameters) {
        return Ok(Either::Left(to));
    }
    let receipt = parameters.get("sent").and_then(|sent| {
        let (partition, offset) = sent.split_once('-')?;
        Some(Receipt { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    });
    let user = parameters.get("as").unwrap_or_default().to_owned();
    let form = SendForm { user, ..SendForm::default() };
    parts.render(&parameters, form, receipt, Status::Ok).await.map(Either::Right)
}

/// The parts that the page needs, as a guard: the form's answer is the page too.
pub struct LiveParts<'r> {
    frame: PageFrame,
    feed: &'r Feed,
    recents: &'r Arc<Recents>,
    heavy: &'r HeavyWork,
    ingest: &'r Ingest,
    rejects: &'r Rejects,
    client: Address,
    opened: Option<bool>,
    base: String,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for LiveParts<'r> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        guards::part(LiveParts::of(request))
    }
}

/// Returns the page of a request whose parameters are wrong, for people.
pub fn with_errors(request: &Request, parameters: &Parameters) -> Option<String> {
    LiveParts::of(request)?.with_errors(parameters)?.render().ok()
}

impl<'r> LiveParts<'r> {
    fn of(request: &'r Request<'_>) -> Option<Self> {
        Some(LiveParts {
            frame: super::frame_of(request)?,
            feed: request.rocket().state()?,
            recents: request.rocket().state()?,
            heavy: request.rocket().state()?,
            ingest: request.rocket().state::<Arc<Ingest>>()?,
            rejects: request.rocket().state::<Arc<Rejects>>()?,
            client: Address::new(request.client_ip()),
            opened: super::cookie(request, FORM_COOKIE).map(|state| state == "open"),
            base: Base::of(request).0,
        })
    }

    /// The page with the filters as they were sent, and what is wrong in them; `None` if that is not in a filter.
    fn with_errors(self, parameters: &Parameters) -> Option<LivePage> {
        let (mut listing, wrong) = separate(parameters, |parameters| Ok(Listing::of_live(parameters)?))?;
        listing.wrong = wrong;
        Some(LivePage {
            frame: self.frame,
            listing,
            suggestions: Suggestions::default(),
            strip: None,
            rows: Vec::new(),
            cursor: String::new(),
            now_ms: now_ms(),
            form: SendForm { id: EventId::new().to_string(), ..SendForm::default() },
            rejected: Rejected::default(),
            receipt: None,
            deadline_ms: self.ingest.settings().deadline.as_millis(),
            opened: self.opened,
            base: self.base,
        })
    }

    /// Renders the page with a form as it was typed, and with the position of an accepted event.
    pub async fn render(
        self,
        parameters: &Parameters,
        mut form: SendForm,
        receipt: Option<Receipt>,
        status: Status,
    ) -> Result<Html, Problem> {
        let listing = Listing::of_live(parameters)?.in_zone(&self.frame.zone);
        if form.id.is_empty() {
            form.id = EventId::new().to_string();
        }
        if let Some(sent) = &receipt {
            let _ = tokio::time::timeout(SENT_WITHIN, self.feed.reaches(sent.partition, sent.offset)).await;
        }
        let LiveParts { frame, feed, recents, heavy, ingest, rejects, client, opened, base } = self;
        let rejected = rejects.news().borrow().clone();
        let (feed, recents, deadline_ms) = (feed.clone(), recents.clone(), ingest.settings().deadline.as_millis());
        // The records may be large, and are parsed.
        let page = heavy.run(client, move || {
            let (records, cursor) = feed.latest(&Filter::from(&listing.filters), ROWS);
            let strip = Some(Strip::new(&recents, &feed, &listing));
            let page = LivePage {
                frame,
                rows: records.iter().map(|record| Row::new(record, &listing)).collect(),
                listing,
                suggestions: Suggestions::of(&feed),
                strip,
                cursor: cursor.map(|cursor| cursor.to_string()).unwrap_or_default(),
                now_ms: now_ms(),
                form,
                rejected,
                receipt,
                deadline_ms,
                opened,
                base,
            };
            html(status, &page)
        });
        page.await?
    }
}
