//! The colours of actions: the same in rows, charts and legends of all pages.
//!
//! Ten actions have a colour of their own, the others share a grey. The hash of an action picks where the search for a
//! free colour starts, so most actions have the same colour in every process. An action keeps its colour until the
//! process ends. The most frequent actions of the last day choose first, when the statistics have read it; after that,
//! the first that come.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Colours that `app.css` defines as `--series-1` to `--series-10`; 0 is the grey of the others.
pub const COLOURS: u8 = 10;
/// Red also reads as an error, so it is given last.
const RED: u8 = 8;
/// Longer names get no colour.
const LONGEST_NAME: usize = 800;

static COLOURS_OF_ACTIONS: RwLock<Option<HashMap<String, Colour>>> = RwLock::new(None);

/// One of the colours of `app.css`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colour(u8);

impl Colour {
    /// The grey of all actions that have no colour of their own.
    pub const OTHERS: Colour = Colour(0);

    /// Returns a colour for something other than an action, such as the member of a group: the same for the same number.
    pub fn numbered(number: usize) -> Self {
        // Without red. The remainder is small.
        Colour(1 + (number % usize::from(RED - 1)) as u8)
    }

    /// The class of elements in this colour.
    pub fn class(self) -> &'static str {
        ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10"][usize::from(self.0)]
    }
}

/// Returns the colour of an action. If it has none and one is free, the action gets it, unless the most frequent actions
/// have not chosen yet.
pub fn of(action: &str) -> Colour {
    let known = |map: &HashMap<String, Colour>| map.get(action).copied();
    {
        let colours = COLOURS_OF_ACTIONS.read().unwrap_or_else(PoisonError::into_inner);
        match colours.as_ref().map(|map| (known(map), map.len())) {
            None => return Colour::OTHERS,
            Some((Some(colour), _)) => return colour,
            Some((None, taken)) if taken >= usize::from(COLOURS) => return Colour::OTHERS,
            Some((None, _)) => {}
        }
    }
    let mut colours = COLOURS_OF_ACTIONS.write().unwrap_or_else(PoisonError::into_inner);
    colours.as_mut().map_or(Colour::OTHERS, |map| choose(map, action))
}

/// Lets these actions choose in their order, the most frequent first.
pub fn choose_first<'a>(actions: impl IntoIterator<Item = &'a str>) {
    let mut colours = COLOURS_OF_ACTIONS.write().unwrap_or_else(PoisonError::into_inner);
    let map = colours.get_or_insert_default();
    actions.into_iter().for_each(|action| _ = choose(map, action));
}

/// Returns the colour of an action; gives it the first free one, red last.
fn choose(map: &mut HashMap<String, Colour>, action: &str) -> Colour {
    if let Some(colour) = map.get(action) {
        return *colour;
    }
    if action.is_empty() || action.len() > LONGEST_NAME {
        return Colour::OTHERS;
    }
    let order: Vec<u8> = (1..=COLOURS).filter(|colour| *colour != RED).collect();
    let start = hash(action) as usize % order.len();
    let probed = order[start..].iter().chain(&order[..start]).chain(&[RED]);
    let mut free = probed.copied().map(Colour).filter(|colour| !map.values().any(|taken| taken == colour));
    let Some(colour) = free.next() else { return Colour::OTHERS };
    map.insert(action.to_owned(), colour);
    colour
}

/// FNV-1a.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_actions_have_a_colour_each_and_keep_it() {
        let mut map = HashMap::new();
        let names: Vec<String> = (0..30).map(|n| format!("action-{n}")).collect();
        let given: Vec<Colour> = names.iter().map(|name| choose(&mut map, name)).collect();
        let mut distinct = given[..10].to_vec();
        distinct.sort_by_key(|colour| colour.0);
        assert_eq!(distinct, (1..=10).map(Colour).collect::<Vec<_>>());
        assert_eq!(given[9], Colour(RED), "red comes last");
        assert!(given[10..].iter().all(|colour| *colour == Colour::OTHERS), "{given:?}");
        let again: Vec<Colour> = names.iter().map(|name| choose(&mut map, name)).collect();
        assert_eq!(again, given);
    }

    #[test]
    fn an_action_alone_has_the_colour_of_its_hash() {
        let alone = |name: &str| choose(&mut HashMap::new(), name);
        assert_eq!(alone("login"), alone("login"));
        assert_eq!((alone(""), alone(&"x".repeat(801))), (Colour::OTHERS, Colour::OTHERS));
    }

    /// A colour of OKLCH, as CIELAB (D65), and its relative luminance.
    struct Measured {
        lab: [f64; 3],
        luminance: f64,
    }

    /// Björn Ottosson's OKLab, and sRGB's primaries.
    fn measured([l, c, h]: [f64; 3]) -> Measured {
        let (a, b) = (c * h.to_radians().cos(), c * h.to_radians().sin());
        let cube = |x: f64| x * x * x;
        let long = cube(l + 0.396_337_777_4 * a + 0.215_803_757_3 * b);
        let medium = cube(l - 0.105_561_345_8 * a - 0.063_854_172_8 * b);
        let short = cube(l - 0.089_484_177_5 * a - 1.291_485_548 * b);
        let red = 4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short;
        let green = -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short;
        let blue = -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701 * short;
        assert!([red, green, blue].iter().all(|x| (-0.001..=1.001).contains(x)), "{l} {c} {h} is not in sRGB");
        let x = (0.412_456_4 * red + 0.357_576_1 * green + 0.180_437_5 * blue) / 0.950_47;
        let y = 0.212_672_9 * red + 0.715_152_2 * green + 0.072_175 * blue;
        let z = (0.019_333_9 * red + 0.119_192 * green + 0.950_304_1 * blue) / 1.088_83;
        let f = |t: f64| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
        let lab = [116.0 * f(y) - 16.0, 500.0 * (f(x) - f(y)), 200.0 * (f(y) - f(z))];
        Measured { lab, luminance: y }
    }

    /// The difference of two colours by CIEDE2000 (Sharma, Wu, Dalal, 2005).
    fn difference([l1, a1, b1]: [f64; 3], [l2, a2, b2]: [f64; 3]) -> f64 {
        let seventh = |c: f64| (c.powi(7) / (c.powi(7) + 25f64.powi(7))).sqrt();
        let g = 1.5 - 0.5 * seventh(f64::midpoint(a1.hypot(b1), a2.hypot(b2)));
        let (a1, a2) = (a1 * g, a2 * g);
        let (c1, c2) = (a1.hypot(b1), a2.hypot(b2));
        let hue = |a: f64, b: f64| b.atan2(a).to_degrees().rem_euclid(360.0);
        let (h1, h2) = (hue(a1, b1), hue(a2, b2));
        let turn = (h2 - h1 + 540.0).rem_euclid(360.0) - 180.0;
        let (dl, dc, dh) = (l2 - l1, c2 - c1, 2.0 * (c1 * c2).sqrt() * (turn / 2.0).to_radians().sin());
        let (l, c, h) = (f64::midpoint(l1, l2), f64::midpoint(c1, c2), h1 + turn / 2.0);
        let cos = |degrees: f64| degrees.to_radians().cos();
        let t =
            1.0 - 0.17 * cos(h - 30.0) + 0.24 * cos(2.0 * h) + 0.32 * cos(3.0 * h + 6.0) - 0.2 * cos(4.0 * h - 63.0);
        let sl = 1.0 + 0.015 * (l - 50.0).powi(2) / (20.0 + (l - 50.0).powi(2)).sqrt();
        let (sc, sh) = (1.0 + 0.045 * c, 1.0 + 0.015 * c * t);
        let from_blue = (h.rem_euclid(360.0) - 275.0) / 25.0;
        let turned = -2.0 * seventh(c) * (60.0 * (-from_blue * from_blue).exp()).to_radians().sin();
        let (l, c, h) = (dl / sl, dc / sc, dh / sh);
        (l * l + c * c + h * h + turned * c * h).sqrt()
    }

    /// Reads `--name: light-dark(oklch(L C h), oklch(L C h));`.
    fn token(name: &str) -> [Measured; 2] {
        let css = include_str!("../static/app.css");
        let (_, rest) = css.split_once(&format!("--{name}: light-dark(")).unwrap_or_else(|| panic!("no token {name}"));
        let mut schemes = rest.split("oklch(").skip(1).map(|colour| {
            let numbers = colour.split(')').next().expect("a colour").split(' ').map(|n| n.parse().expect("a number"));
            measured(numbers.collect::<Vec<f64>>().try_into().expect("three numbers"))
        });
        [(); 2].map(|()| schemes.next().expect("two colours"))
    }

    #[test]
    fn the_difference_is_that_of_the_published_examples() {
        let of = |a, b| (difference(a, b) * 10_000.0).round() / 10_000.0;
        assert_eq!(of([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485]), 2.0425);
        assert_eq!(of([50.0, 2.5, 0.0], [73.0, 25.0, -18.0]), 27.1492);
        assert_eq!(of([2.0776, 0.0795, -1.135], [0.9033, -0.0636, -0.5514]), 0.9082);
    }

    #[test]
    fn colours_of_actions_differ_and_stand_out_from_the_page() {
        let (paper, others) = (token("paper"), token("series-0"));
        let series: Vec<[Measured; 2]> = (1..=COLOURS).map(|n| token(&format!("series-{n}"))).collect();
        for scheme in 0..2 {
            for (n, colour) in series.iter().enumerate() {
                let (bright, dark) = (colour[scheme].luminance, paper[scheme].luminance);
                let contrast = (bright.max(dark) + 0.05) / (bright.min(dark) + 0.05);
                assert!(contrast >= 3.0, "series-{} has a contrast of {contrast} in scheme {scheme}", n + 1);
                for (m, other) in series.iter().enumerate().skip(n + 1).chain([(usize::MAX - 1, &others)]) {
                    let far = difference(colour[scheme].lab, other[scheme].lab);
                    assert!(far >= 15.0, "series-{} and series-{} differ by {far} in scheme {scheme}", n + 1, m + 1);
                }
            }
        }
    }
}
