//! The zone of the pages' times: kept in a cookie, chosen in the header, and the same in rows, charts, tables and inputs.

use crate::common::http::{Response, encoded};
use crate::common::{Application, Broker, Browser, NewRecord};
use serde_json::{Value, json};

const KATHMANDU: &str = "Asia/Kathmandu";
const ZONES: [&str; 3] = ["America/New_York", "Europe/Berlin", KATHMANDU];

/// The search of the tests: three minutes around noon in UTC.
const AT_NOON: &str = "/history?since=2026-11-23T11:59:00Z&until=2026-11-23T12:02:00Z&order=oldest&chart=1";

fn in_zone(app: &Application, path: &str, zone: &str) -> Response {
    app.request("GET", path).header("Accept", "text/html").header("Cookie", &format!("a=b; zone={zone}")).send()
}

/// Writes events a few seconds apart, from 2026-11-23T12:00:00 UTC on.
fn write_at_noon(app: &Application) {
    for n in 0..5 {
        let value = json!({"user": "Ann", "action": "login", "n": n}).to_string();
        let time = format!("2026-11-23T12:00:{:02}.250Z", n * 11);
        app.topic().produce(&NewRecord::new().value(value).header("ce_time", time));
    }
}

/// The values of an attribute, or what follows it up to a character.
fn all<'a>(html: &'a str, before: &str, end: char) -> Vec<&'a str> {
    html.split(before).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

fn location(response: &Response) -> String {
    response.header("Location").unwrap_or_default().replace("%3A", ":")
}

#[test]
fn rows_axis_table_and_inputs_are_in_the_zone_of_the_cookie() {
    let app = Application::on(Broker::Embedded).start();
    write_at_noon(&app);
    for (zone, label, day, noon, before) in [
        ("UTC", "UTC", "2026-11-23", "12:00", "11:59:00"),
        ("America/New_York", "UTC-5", "2026-11-23", "07:00", "06:59:00"),
        ("Europe/Berlin", "UTC+1", "2026-11-23", "13:00", "12:59:00"),
        (KATHMANDU, "UTC+5:45", "2026-11-23", "17:45", "17:44:00"),
        ("Pacific/Auckland", "UTC+13", "2026-11-24", "01:00", "00:59:00"),
        ("-03:30", "UTC-3:30", "2026-11-23", "08:30", "08:29:00"),
    ] {
        let page = in_zone(&app, AT_NOON, zone).expect(200);
        let html = page.text();
        assert_eq!(page.header("Cache-Control"), Some("no-store"), "the page depends on the cookie");
        let row = format!(
            r#"<time datetime="2026-11-23T12:00:00.250Z" title="{day} {noon}:00.250 {label}"><i>{day} </i>{noon}:00</time>"#
        );
        assert!(html.contains(&row), "{zone}: {html}");
        let ticks = all(html, r#"<time class="tick" datetime=""#, '<');
        assert!(
            ticks.iter().any(|tick| tick.ends_with(&format!(">{noon}:00")) || tick.ends_with(&format!(">{noon}"))),
            "{zone}: {ticks:?}"
        );
        assert!(html.contains(&format!(">{day} {noon}:00 {label}</time></a></th>")), "{zone}: the table in {html}");
        assert!(html.contains(&format!("times in {zone}<")), "{zone}: {html}");
        assert!(
            html.contains(&format!(r#"name="since" type="datetime-local" step="1" value="{day}T{before}""#)),
            "{zone}: {html}"
        );
        assert!(html.contains(&format!("<summary class=\"button\">{day} {before} – ")), "{zone}: {html}");
        let exact = format!("{day} {noon}:00.250 {label}</time></a>");
        let record =
            all(html, "href=\"/events/", '"').first().map(|place| format!("/events/{place}")).expect("a record");
        assert!(in_zone(&app, &record, zone).expect(200).text().contains(&exact), "{zone}: {record}");
        assert!(
            in_zone(&app, "/users/Ann?partitions=all", zone)
                .expect(200)
                .text()
                .contains(&format!("{noon}:00.250 {label}</time>"))
        );
    }
    // Addresses mean the same to everybody.
    let links = |zone| in_zone(&app, AT_NOON, zone).text().matches("since=2026-11-23T12%3A00%3A00Z").count();
    assert!(links("UTC") > 0 && links("UTC") == links("Europe/Berlin"));
    let rejected = app.request("POST", "/api/v1/events").json(&json!({"user": 1})).send();
    assert_eq!(rejected.status(), 422);
    assert!(in_zone(&app, "/rejects", KATHMANDU).text().contains(" UTC+5:45</time>"));
    assert!(in_zone(&app, "/overview", KATHMANDU).text().contains("times in Asia/Kathmandu"));
}

#[test]
fn every_time_of_every_page_is_in_the_zone() {
    let app = Application::on(Broker::Kafka).start();
    let place = |user: &str| {
        let receipt = app.accept(&json!({"user": user, "action": "login", "time": "2026-11-23T12:00:00.250Z"}));
        format!("{}-{}", receipt["partition"], receipt["offset"])
    };
    let (first, second) = (place("Ann"), place("Ann"));
    app.request("POST", "/api/v1/events").json(&json!({"user": "Ann"})).send().expect(422);
    let record = format!("/events/{}", second.replace('-', "/"));
    let mut checked = 0;
    let compare = format!("/compare?a={first}&b={second}");
    for path in ["/", "/history?chart=1", &record, &compare, "/users/Ann", "/overview", "/rejects", "/kafka"] {
        let page = in_zone(&app, path, KATHMANDU).expect(200);
        let times = all(page.text(), "<time datetime=\"", '/');
        for time in times {
            // `2026-11-23T12:00:00.250Z" title="…">17:45:00<`
            let (iso, rest) = time.split_once('"').expect("an attribute");
            let shown = rest.split_once('>').expect("its text").1;
            let minute: u32 = iso[14..16].parse().expect("a minute");
            let local = format!(":{:02}", (minute + 45) % 60);
            // The age of something has no clock.
            assert!(!shown.contains(':') || shown.contains(&local), "{path}: {time}");
            checked += usize::from(shown.contains(':'));
        }
    }
    assert!(checked > 8, "{checked}");
}

#[test]
fn a_copied_time_finds_the_row_from_which_it_was_copied() {
    let app = Application::on(Broker::Embedded).start();
    write_at_noon(&app);
    for zone in ZONES {
        let page = in_zone(&app, AT_NOON, zone).expect(200).text().to_owned();
        let rows = all(&page, "id=\"e-", '"').into_iter().map(str::to_owned).collect::<Vec<_>>();
        let times = all(&page, "<i>2", '/').into_iter().map(|time| format!("2{}", time.replace("<", "")));
        let clocks = all(&page, " </i>", '<');
        let times: Vec<String> = times.zip(clocks).map(|(day, clock)| format!("{day}{clock}")).collect();
        assert_eq!((rows.len(), times.len()), (5, 5), "{zone}: {page}");
        let exact = all(&page, "Z\" title=\"", '"').into_iter().map(str::to_owned);
        for ((row, time), exact) in rows.iter().zip(&times).zip(exact) {
            for typed in [time.clone(), time.replace([' ', '\u{a0}'], "T"), exact] {
                let query = format!("/history?order=oldest&since={}", encoded(&typed));
                let redirect = in_zone(&app, &query, zone).expect(303);
                assert!(location(&redirect).ends_with('Z'), "{zone}: {typed} became {}", location(&redirect));
                // Shared with somebody in another zone, the address finds the same.
                for reader in [zone, "UTC"] {
                    let found = in_zone(&app, redirect.header("Location").expect("an address"), reader).expect(200);
                    assert_eq!(all(found.text(), "id=\"e-", '"').first(), Some(&&**row), "{zone}: {typed}");
                }
            }
        }
    }
}

#[test]
fn a_time_that_clocks_show_twice_or_never_makes_a_search_longer() {
    let app = Application::on(Broker::Embedded).start();
    let range = |day: &str| {
        let path = format!("/history?since={day}T02:30&until={day}T02:30");
        location(&in_zone(&app, &path, "Europe/Berlin").expect(303))
    };
    assert_eq!(range("2026-10-25"), "/history?since=2026-10-25T00:30:00Z&until=2026-10-25T01:30:00Z");
    assert_eq!(range("2026-03-29"), "/history?since=2026-03-29T00:30:00Z&until=2026-03-29T01:30:00Z");
    // The form says in which zone its page was; what has a zone is not changed.
    let path = "/history?zone=America/New_York&since=2026-11-23T07:00:00&until=2026-11-23T12:01:00Z&q=a";
    let found = location(&in_zone(&app, path, "Europe/Berlin").expect(303));
    assert_eq!(found, "/history?until=2026-11-23T12:01:00Z&q=a&since=2026-11-23T12:00:00Z");
    in_zone(&app, "/history?since=-15m", "Europe/Berlin").expect(200);
    // The API does not know the zone of a browser.
    let api = in_zone(&app, "/api/v1/events?since=2026-11-23T12:00:00", "Europe/Berlin").expect(200);
    assert_eq!(api.json()["events"], json!([]));
}

#[test]
fn a_cookie_that_names_no_zone_does_no_harm() {
    let app = Application::on(Broker::Embedded).start();
    let long = "A".repeat(8_000);
    for cookie in ["", "../../etc/passwd", "Nowhere/Town", "<script>", "+99:99", "%0d%0aX:1", "\"Mars\"", &long] {
        for path in ["/", "/history?chart=1", "/overview", "/history/histogram"] {
            let page = in_zone(&app, path, cookie).expect(200);
            assert!(!page.text().contains("data-zone"), "{path} with {cookie}: {}", page.text());
            assert!(cookie.is_empty() || !page.text().contains(cookie), "{path} shows {cookie}");
        }
    }
    let found = in_zone(&app, "/history?since=2026-11-23T12:00:00", "Nowhere/Town").expect(303);
    assert_eq!(location(&found), "/history?since=2026-11-23T12:00:00Z");
}

#[test]
fn the_form_keeps_a_zone_and_leads_back_to_its_page() {
    let app = Application::on(Broker::Embedded).start();
    let choose = |fields: &[(&str, &str)]| app.request("POST", "/zone").form(fields);
    let answer = choose(&[("zone", "europe/berlin"), ("back", "/history?q=a%26b&since=-1h")]).send().expect(303);
    assert_eq!(answer.header("Location"), Some("/history?q=a%26b&since=-1h"));
    assert_eq!(answer.header("Set-Cookie"), Some("zone=Europe/Berlin; Path=/; Max-Age=31536000; SameSite=Lax"));
    for back in ["", "//evil.example/", "/\\evil.example", "https://evil.example/", "javascript:alert(1)", "/a\r\nX: 1"]
    {
        let answer = choose(&[("zone", "+05:30"), ("back", back)]).send().expect(303);
        assert_eq!((answer.header("Location"), answer.header("X")), (Some("/"), None), "{back}");
    }
    for zone in ["", "Berlin", "UTC; Domain=example", "UTC\r\nX: 1", "+15:00"] {
        let problem = choose(&[("zone", zone)]).send().expect(400);
        assert_eq!(problem.header("Set-Cookie"), None, "{zone}");
        assert!(problem.problem()["detail"].as_str().is_some_and(|detail| detail.starts_with("zone must be UTC")));
    }
    for (name, site) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://evil.example")] {
        let refused = choose(&[("zone", "UTC")]).header(name, site).send().expect(403);
        assert_eq!(refused.header("Set-Cookie"), None);
    }
    app.request("POST", "/zone").body("application/json", "{}").send().expect(415);
    app.get("/zone").expect(405);
    // These were no submissions.
    assert!(app.get("/rejects").expect(200).text().contains("Nothing was rejected"));
}

#[test]
fn under_a_base_path_the_cookie_is_for_that_path_alone() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_BASE_PATH", "/footfall").start();
    let choose = |back: &str| {
        let answer = app.request("POST", "/footfall/zone").form(&[("zone", "UTC"), ("back", back)]).send().expect(303);
        assert_eq!(answer.header("Set-Cookie"), Some("zone=UTC; Path=/footfall; Max-Age=31536000; SameSite=Lax"));
        answer.header("Location").map(str::to_owned).expect("an address")
    };
    assert_eq!(choose("/footfall/history?q=a"), "/footfall/history?q=a");
    for elsewhere in ["/history", "/footfalls/", "/footfall//evil.example", "/"] {
        assert_eq!(choose(elsewhere), "/footfall/", "{elsewhere}");
    }
    let page = app.get("/footfall/history?q=a%26b").expect(200);
    assert!(page.text().contains(r#"name="back" value="/footfall/history?q=a%26b""#), "{}", page.text());
}

// --- In a browser ----------------------------------------------------------------------------------------------------

fn browser_in(zone: &str) -> Browser {
    let browser = Browser::start();
    browser.devtools("Emulation.setTimezoneOverride", json!({"timezoneId": zone}));
    browser
}

/// The times of rows as they are shown, without their age.
fn shown(browser: &Browser) -> Value {
    browser.js("return [...document.querySelectorAll('#rows > .event time')].map((time) => \
         `${[...time.childNodes].slice(0, 2).map((part) => part.textContent).join('')} | ${time.title}`.replace('\\u00a0', ' '))")
}

/// The first page is converted by the script, the second is rendered by the server in the zone of the cookie.
#[test]
fn a_time_copied_from_a_row_is_pasted_into_since() {
    let app = Application::on(Broker::Embedded).start();
    write_at_noon(&app);
    for (zone, label, since) in [
        ("America/New_York", "UTC-5", "2026-11-23T06:59:59"),
        ("Europe/Berlin", "UTC+1", "2026-11-23T12:59:59"),
        (KATHMANDU, "UTC+5:45", "2026-11-23T17:44:59"),
    ] {
        let browser = browser_in(zone);
        let mut before = Value::Null;
        for visit in ["first", "second"] {
            browser.open(&app, "/history?since=2026-11-23T11:59:59Z&order=oldest");
            browser.wait_for_rows(5);
            browser.wait_for_text("#zone", label);
            assert_eq!(browser.value("[name=since]"), since, "{zone}, {visit} visit");
            browser.wait_for("the chart", || browser.texts("#histogram .legend").join(" ").contains("times in "));
            let rows = shown(&browser);
            assert!(before.is_null() || before == rows, "{zone}: {before} and {rows}");
            before = rows;
            browser.wait_for_text(".zone-now", label);
            let third = before[2].as_str().and_then(|text| text.split(" | ").next()).expect("a time");
            let id = "return document.querySelectorAll('#rows > .event')[arguments[0]].id";
            let row = browser.js_with(id, json!(2));
            browser.js("document.getElementById('range').open = true");
            browser.js_with(
                "const clipboardData = new DataTransfer(); clipboardData.setData('text', arguments[0]); \
                 document.querySelector('[name=since]').dispatchEvent(\
                     new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))",
                json!(third),
            );
            browser.click("#filters > button.primary");
            browser.wait_for("the search", || browser.location().contains("since=2026-11-23T12%3A00%3A22Z"));
            browser
                .wait_for("the row", || browser.count("#rows > .event") == 3 && browser.js_with(id, json!(0)) == row);
        }
        // The times of an open row and of its page lead to the history from there.
        browser.click("#rows summary");
        browser.wait_for_text("#rows [data-from=time]", &format!(":22.250 {label}"));
        browser.click("#rows [data-from=time]");
        browser.wait_for("the history", || browser.location().contains("since=2026-11-23T12%3A00%3A22.250Z"));
        assert_eq!(browser.wait_for_rows(3).len(), 3);
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
}

#[test]
fn live_rows_have_the_same_times_as_the_first_paint() {
    let app = Application::on(Broker::Embedded).start();
    let browser = browser_in("America/New_York");
    for (visit, count) in [("first", 1), ("second", 2)] {
        browser.open_live(&app, "/");
        app.accept(&json!({"user": "Ann", "action": "login", "time": format!("2026-11-23T12:00:0{count}.250Z")}));
        browser.wait_for_rows(count);
        let live = shown(&browser);
        let newest = format!("2026-11-23 07:00:0{count} | 2026-11-23 07:00:0{count}.250 UTC-5");
        assert_eq!(live[0], json!(newest), "{visit} visit");
        browser.reload();
        browser.wait_for_rows(count);
        assert_eq!(shown(&browser), live, "{visit} visit");
    }
    // UTC is as near as the other.
    browser.click("#state > summary");
    browser.click(".zones [value=UTC]");
    browser.wait_for_text(".zone-now", "Times in UTC");
    browser.wait_for("rows in UTC", || shown(&browser)[1] == "2026-11-23 12:00:01 | 2026-11-23 12:00:01.250 UTC");
    browser.click("#state > summary");
    browser.click("#zone-own");
    browser.wait_for_text(".zone-now", "UTC-5");
    browser.click("#state > summary");
    let barriers: Vec<String> = browser.barriers(false).into_iter().filter(|found| found.contains("zone")).collect();
    assert_eq!(barriers, Vec::<String>::new());
}

#[test]
fn without_script_the_zone_is_chosen_in_the_header() {
    let app = Application::on(Broker::Embedded).start();
    write_at_noon(&app);
    let browser = Browser::without_scripts();
    let page = "/history?since=2026-11-23T12:00:00Z&q=login";
    browser.open(&app, page);
    assert_eq!(browser.texts("#zone"), ["UTC"]);
    browser.click("#state > summary");
    assert_eq!(browser.text("#zone-own"), None);
    browser.fill(".zones input[maxlength]", "Asia/Kathmandu");
    browser.press_enter();
    browser.wait_for("the zone", || browser.texts("#zone") == ["UTC+5:45"]);
    assert_eq!(browser.location(), page);
    assert!(browser.texts("#rows time")[0].ends_with("17:45:44"), "{:?}", browser.texts("#rows time"));
    browser.click("#state > summary");
    browser.click(".zones [value=UTC]");
    browser.wait_for("UTC", || browser.texts("#zone") == ["UTC"]);
    assert_eq!(browser.location(), page);
}
