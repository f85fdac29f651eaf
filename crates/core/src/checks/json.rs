//! A slow JSON parser by RFC 8259 that shares no code with the product.

/// A JSON value. A text is `None` if it has half of a surrogate pair, which the grammar allows and Unicode does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(Option<String>),
    Array(Vec<Node>),
    Object(Vec<(Option<String>, Node)>),
}

impl Node {
    pub fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => text.as_deref(),
            _ => None,
        }
    }

    pub fn members(&self) -> Option<&[(Option<String>, Node)]> {
        match self {
            Node::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Returns the values of all members with a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> {
        let members = self.members().unwrap_or_default().iter();
        members.filter(move |(n, _)| n.as_deref() == Some(name)).map(|(_, value)| value)
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        let members = self.members().unwrap_or_default().iter();
        members.filter(|(n, _)| n.as_deref() == Some(name)).map(|(_, value)| value).next_back()
    }

    /// Returns the levels of nesting; `{}` is one.
    pub fn depth(&self) -> usize {
        match self {
            Node::Array(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Node::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether all member names of an object are Unicode.
    pub fn is_named(&self) -> bool {
        self.members().unwrap_or_default().iter().all(|(name, _)| name.is_some())
    }
}

/// Parses a text, which must be a single JSON value.
pub fn read(text: &str) -> Option<Node> {
    let mut reader = JsonReader { rest: text };
    let node = reader.value()?;
    reader.blanks();
    reader.rest.is_empty().then_some(node)
}

/// Returns the items of an array, each as its text.
pub fn items(text: &str) -> Option<Vec<&str>> {
    read(text)?;
    let mut reader = JsonReader { rest: text };
    reader.blanks();
    reader.take('[')?;
    let mut items = Vec::new();
    loop {
        reader.blanks();
        if reader.take(']').is_some() {
            return Some(items);
        }
        if !items.is_empty() {
            reader.take(',')?;
            reader.blanks();
        }
        let before = reader.rest;
        reader.value()?;
        items.push(&before[..before.len() - reader.rest.len()]);
    }
}

/// Returns the value of an object's member, as its text.
pub fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = JsonReader { rest: text };
    reader.blanks();
    reader.take('{')?;
    let (mut found, mut first) = (None, true);
    loop {
        reader.blanks();
        if reader.take('}').is_some() {
            return found;
        }
        if !std::mem::take(&mut first) {
            reader.take(',')?;
            reader.blanks();
        }
        let key = reader.string()?;
        reader.blanks();
        reader.take(':')?;
        reader.blanks();
        let before = reader.rest;
        reader.value()?;
        if key.as_deref() == Some(name) {
            found = Some(&before[..before.len() - reader.rest.len()]);
        }
    }
}

struct JsonReader<'a> {
    rest: &'a str,
}

impl JsonReader<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn value(&mut self) -> Option<Node> {
        self.blanks();
        match self.rest.chars().next()? {
            '{' => self.object(),
            '[' => self.array(),
            '"' => self.string().map(Node::Text),
            '-' | '0'..='9' => self.number(),
            _ => {
                for (word, node) in [("null", Node::Null), ("true", Node::Bool(true)), ("false", Node::Bool(false))] {
                    if let Some(rest) = self.rest.strip_prefix(word) {
                        self.rest = rest;
                        return Some(node);
                    }
                }
                None
            }
        }
    }

    fn array(&mut self) -> Option<Node> {
        self.take('[')?;
        let mut items = Vec::new();
        self.blanks();
        if self.take(']').is_some() {
            return Some(Node::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.blanks();
            match self.next()? {
                ',' => {}
                ']' => return Some(Node::Array(items)),
                _ => return None,
            }
        }
    }

    fn object(&mut self) -> Option<Node> {
        self.take('{')?;
        let mut members = Vec::new();
        self.blanks();
        if self.take('}').is_some() {
            return Some(Node::Object(members));
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.take(':')?;
            members.push((name, self.value()?));
            self.blanks();
            match self.next()? {
                ',' => {}
                '}' => return Some(Node::Object(members)),
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<Node> {
        let before = self.rest;
        let _ = self.take('-');
        if self.take('0').is_none() {
            self.digits()?;
        }
        if self.take('.').is_some() {
            self.digits()?;
        }
        if self.rest.starts_with(['e', 'E']) {
            self.next();
            if self.rest.starts_with(['+', '-']) {
                self.next();
            }
            self.digits()?;
        }
        Some(Node::Number(before[..before.len() - self.rest.len()].to_owned()))
    }

    fn digits(&mut self) -> Option<()> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let some = rest.len() < self.rest.len();
        self.rest = rest;
        some.then_some(())
    }

    /// The inner `None` means half of a surrogate pair.
    fn string(&mut self) -> Option<Option<String>> {
        self.take('"')?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            match self.next()? {
                '"' => return Some(String::from_utf16(&units).ok()),
                '\0'..='\x1f' => return None,
                '\\' => units.push(match self.next()? {
                    '"' => 0x22,
                    '\\' => 0x5c,
                    '/' => 0x2f,
                    'b' => 8,
                    'f' => 12,
                    'n' => 10,
                    'r' => 13,
                    't' => 9,
                    'u' => {
                        let digits: String = (0..4).map_while(|_| self.next()).collect();
                        let hex = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                        hex.then(|| u16::from_str_radix(&digits, 16).ok()).flatten()?
                    }
                    _ => return None,
                }),
                c => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
            }
        }
    }
}
