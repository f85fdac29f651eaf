//! The keys of Rocket that Footfall supports, and their defaults.

use rocket::Config;
use rocket::figment::Figment;

use super::InvalidConfig;
use super::provenance::explain;
use super::table::{SettingKey, SettingKind, Table};

/// Keys that Rocket or its companions read and that `Config::PARAMETERS` of Rocket 0.5 does not list.
const UNLISTED: [&str; 3] = ["profile", "proxy_proto_header", "template_dir"];

/// The keys of Rocket that matter to operators, in the profile itself.
pub const ROCKET: Table = Table {
    name: "",
    about: &[
        " Rocket's own keys, in the table `[default]`. Their variables are `ROCKET_<KEY>`, such as `ROCKET_PORT`.",
    ],
    keys: &[
        SettingKey {
            name: "address",
            doc: &[
                " IP address to listen on. `0.0.0.0` or `::` lets other machines connect: put a proxy in front first,",
                " because Footfall has no accounts.",
            ],
            kind: SettingKind::Text,
            bounds: None,
            reason: "",
        },
        SettingKey {
            name: "port",
            doc: &[" TCP port to listen on. 0: the system chooses one, and the log names it."],
            kind: SettingKind::Number,
            bounds: Some(["0", "65535"]),
            reason: "",
        },
        SettingKey {
            name: "keep_alive",
            doc: &[" Seconds that an idle connection stays open for its next request. 0 closes it after each request."],
            kind: SettingKind::Number,
            bounds: None,
            reason: "",
        },
        SettingKey {
            name: "ip_header",
            doc: &[
                " Header that holds the client's address, such as `\"X-Real-IP\"`; `false`: none. Set it only if all requests",
                " come through your proxy and the proxy overwrites the header, because any client can send it.",
            ],
            kind: SettingKind::Switch,
            bounds: None,
            reason: "",
        },
    ],
};

/// Rocket's defaults, with those of Footfall where they differ.
pub(super) fn defaults() -> Config {
    Config {
        // By default Rocket believes a header that any client can send.
        ip_header: None,
        // Footfall logs its own lines.
        log_level: rocket::config::LogLevel::Off,
        keep_alive: crate::bounds::IDLE.as_secs() as u32,
        ..Config::default()
    }
}

/// Whether Rocket knows a key.
pub(super) fn is_known(key: &str) -> bool {
    Config::PARAMETERS.contains(&key) || UNLISTED.contains(&key)
}

/// Checks Rocket's keys. Rocket itself would only say that it cannot extract them.
pub(super) fn check(figment: &Figment) -> Result<(), InvalidConfig> {
    let whole = Figment::from(Config::default()).merge(figment.clone()).select(figment.profile().clone());
    whole.extract::<Config>().map(|_| ()).map_err(|error| explain(&whole, error))
}
