//! The form of the live page, as browsers send it.

use std::collections::HashSet;
use std::sync::Arc;

use footfall_core::query_string::{QueryBuilder, pairs};
use rocket::http::{Header, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{self, Redirect, Responder};
use rocket::{State, post};
use utoipa::ToSchema;

use super::Html;
use super::live::{self, FormError, SendForm};
use crate::bounds::Address;
use crate::event::{EventId, FieldError, parse_form};
use crate::ingest::{Ack, Events, Handling, Ingest, Shape, Submission, SubmitError, Verdict, Verdicts};
use crate::kafka::Connection;
use crate::rejects::Refusal;
use crate::web::answer::Answer;
use crate::web::body::RequestBody;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::receipt::Receipt;
use crate::web::rejects;
use crate::web::views::{Listing, live_page};

/// Most bytes of a form beside its event, so that the error for an event that is slightly too large appears beside its
/// field.
const FORM_BESIDE_EVENT: usize = 64 * 1024;

/// The fields of the form as they were sent.
#[derive(Default, ToSchema)]
#[schema(as = Form)]
struct Typed {
    /// White space around it is cut off.
    #[schema(value_type = openapi::Name)]
    user: String,
    /// White space around it is cut off.
    #[schema(value_type = openapi::Name)]
    action: String,
    /// Blank, or a JSON object whose members are added.
    #[schema(required = false)]
    details: String,
    /// The event's id: sent again, the form is the same event. What was changed since gets another id.
    #[schema(required = false, max_length = 128, pattern = "^[!-~]*$")]
    id: String,
}

impl Typed {
    /// Reads a form; a missing field is empty. The pointer of an error is the name of its field, and bytes that are not
    /// UTF-8 are replaced.
    fn read(form: &[u8]) -> (Self, Vec<FieldError>) {
        let (mut typed, mut errors, mut seen) = (Typed::default(), Vec::new(), HashSet::new());
        for [name, value] in pairs(form) {
            let Ok(name) = name else { continue };
            let field = match name.as_str() {
                "user" => &mut typed.user,
                "action" => &mut typed.action,
                "details" => &mut typed.details,
                "id" => &mut typed.id,
                _ => continue,
            };
            let pointer = format!("/{name}");
            if !seen.insert(name) {
                let error = FieldError::new(pointer, "appears twice; expected one value");
                // One error for each field, however often the field comes.
                if !errors.contains(&error) {
                    errors.push(error);
                }
                continue;
            }
            *field = value.unwrap_or_else(|bytes| {
                errors.push(FieldError::new(pointer, "is not UTF-8"));
                String::from_utf8_lossy(&bytes).into_owned()
            });
        }
        if !typed.id.is_empty() && !EventId::is_valid(&typed.id) && errors.iter().all(|error| error.pointer != "/id") {
            errors.push(FieldError::new("/id", format!("must be 1 to {} visible ASCII characters", EventId::MAX)));
        }
        (typed, errors)
    }

    /// Submits the fields under the form's id, unless the details have one, so that sending the form again is the same
    /// event. A changed form is another event, and gets another id.
    async fn submit(
        &mut self,
        ingest: &Ingest,
        client: Address,
        wrong: Vec<FieldError>,
    ) -> Result<Verdict, SubmitError> {
        let checked = match wrong.is_empty() {
            true => parse_form(&self.user, &self.action, &self.details, &ingest.limits()),
            false => Err(wrong),
        };
        let names_id = checked.as_ref().is_ok_and(|event| event.id_was_given);
        let submission = Submission {
            events: Events::Form(Box::new(checked)),
            ack: Ack::All,
            handling: Handling::Lenient,
            idempotency_key: Some(self.id.as_str()).filter(|id| !id.is_empty()),
            client: Some(client),
            trace: [None, None],
        };
        let verdict = match ingest.submit(submission).await? {
            Verdicts::One(verdict) => verdict,
            Verdicts::Many(_) | Verdicts::Lines(_) => return Err(SubmitError::WrongShape(Shape::One)),
        };
        if let Verdict::Failed { id, .. } = &verdict
            && !names_id
        {
            self.id = id.to_string();
        }
        Ok(verdict)
    }
}

/// The answer to the form: a page or a redirect to one, or JSON if the page's script sends the form.
#[derive(rocket::Responder)]
pub enum Submitted {
    Redirect(Box<Redirect>),
    Refused(Box<RefusedForm>),
    Json(Answer),
}

/// The page with a form that was not accepted.
pub struct RefusedForm {
    page: Html,
    /// Seconds after which a retry makes sense.
    retry_after: Option<String>,
    /// `None` if a retry may succeed.
    refusal: Option<Refusal>,
}

impl<'r> Responder<'r, 'static> for RefusedForm {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        rejects::note(request, self.refusal);
        let mut response = self.page.respond_to(request)?;
        if let Some(after) = self.retry_after {
            response.set_header(Header::new("Retry-After", after));
        }
        Ok(response)
    }
}

/// The content type of forms.
const ENCODED: &str = "application/x-www-form-urlencoded";

/// The headers that say who sends the form, and how it is encoded.
pub struct FormHead {
    wants_html: bool,
    encoded: bool,
}

impl FormHead {
    /// Refuses a body that is not encoded as a form. `hint` follows what was expected: where other bodies go.
    pub fn expect_encoded(&self, hint: &str) -> Result<(), Problem> {
        if self.encoded {
            return Ok(());
        }
        let detail = format!("expected the content type {ENCODED}{hint}");
        Err(Problem::new(Kind::UnsupportedType, detail).header("Accept", ENCODED))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for FormHead {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let json = request.accept().is_some_and(|accept| accept.preferred().is_json());
        Outcome::Success(FormHead {
            wants_html: !json,
            encoded: request.content_type().is_some_and(|kind| kind.is_form()),
        })
    }
}

/// Bytes of a form with an event of `event` bytes at most: percent-encoding makes three of each.
pub fn form_bytes(event: usize) -> usize {
    3 * event + FORM_BESIDE_EVENT
}

/// The page's form
#[utoipa::path(
    operation_id = "sendForm",
    tag = "pages",
    request_body(
        content = Typed,
        content_type = "application/x-www-form-urlencoded",
        example = json!({"user": "John", "action": "login", "details": "{\"page\":\"/cart\"}"}),
    ),
    responses(
        (status = 201, description = "Sent, to a client that asks for `application/json`.", body = Receipt),
        (status = 303, description = "Sent; the page follows.", headers(("Location" = String))),
        openapi::BadForm,
        openapi::UnsupportedType,
        openapi::InvalidForm,
        openapi::TooMany,
        openapi::Unavailable,
        openapi::Unknown,
    )
)]
#[post("/events")]
pub async fn submit(
    ingest: &State<Arc<Ingest>>,
    connection: &State<Connection>,
    page: live::LiveParts<'_>,
    client: Address,
    head: FormHead,
    parameters: Parameters,
    body: RequestBody<'_>,
) -> Result<Submitted, Problem> {
    head.expect_encoded("; JSON goes to /api/v1/events")?;
    let filters = Listing::of_rows(parameters.filters()?, parameters.columns()?).query();
    let body = body.read(form_bytes(ingest.settings().max_event.as_u64() as usize))?;
    let (mut typed, wrong) = Typed::read(&body);
    let problem = match typed.submit(ingest, client, wrong).await {
        Ok(Verdict::Written { at, .. }) if head.wants_html => {
            let mut sent = QueryBuilder::default();
            sent.add("sent", &format!("{}-{}", at.partition, at.offset));
            sent.add("as", &typed.user);
            let and = if filters.is_empty() { "" } else { "&" };
            let to = live_page(format_args!("{filters}{and}{}", sent.text()));
            return Ok(Submitted::Redirect(Box::new(Redirect::to(to))));
        }
        Ok(Verdict::Written { id, at, .. }) => {
            return Ok(Submitted::Json(Answer::json(201, &Receipt::new(connection.topic(), id, at))));
        }
        Ok(Verdict::Invalid(errors)) if head.wants_html => {
            if errors.iter().any(|error| error.pointer == "/id") {
                typed.id.clear(); // the form gets a new id: the user did not type this one
            }
            let problem = Problem::invalid(0, errors.clone());
            let errors = errors.into_iter().map(beside_its_field).collect();
            return refused(page, &parameters, typed, errors, &problem).await;
        }
        Ok(Verdict::Invalid(errors)) => Problem::invalid(0, errors),
        Ok(Verdict::Failed { id, failure }) => Problem::of_failure(&failure, &id),
        Ok(Verdict::Queued { .. }) => Problem::new(Kind::Internal, "the form waits for Kafka"),
        Err(error) => error.into(),
    };
    if !head.wants_html {
        return Err(problem);
    }
    let errors = vec![FormError { field: "", detail: problem.detail().to_owned() }];
    refused(page, &parameters, typed, errors, &problem).await
}

fn beside_its_field(error: FieldError) -> FormError {
    let (field, detail) = match error.pointer.as_str() {
        "/user" => ("user", error.detail),
        "/action" => ("action", error.detail),
        "/id" => ("", format!("the form's id {}", error.detail)),
        _ => ("details", error.detail),
    };
    FormError { field, detail }
}

/// The page with the form as it was sent, and why it was not accepted.
async fn refused(
    page: live::LiveParts<'_>,
    parameters: &Parameters,
    typed: Typed,
    errors: Vec<FormError>,
    problem: &Problem,
) -> Result<Submitted, Problem> {
    let form = SendForm { user: typed.user, action: typed.action, details: typed.details, id: typed.id, errors };
    let status = Status::new(problem.kind.status());
    Ok(Submitted::Refused(Box::new(RefusedForm {
        page: page.render(parameters, form, None, status).await?,
        retry_after: problem.retry_after().map(str::to_owned),
        refusal: problem.refusal(),
    })))
}
