//! A reader of requests (RFC 9112) that is independent of the proxy's.

/// A field: its name in lower case, and its value without surrounding blanks.
pub(super) type Field = (String, Vec<u8>);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: Vec<u8>,
    /// 1.0 otherwise.
    pub(super) is_1_1: bool,
    pub(super) fields: Vec<Field>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<Field>,
}

impl Request {
    /// The values of a field.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(it, _)| it == name).map(|(_, value)| &**value)
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }
}

/// What a reader puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// Lines of a head may end without CR, and empty ones may come before it; capitals in names; HTTP/1.0; both framings.
    lenient: bool,
}

/// As the proxy reads what callers send.
pub(super) const CALLER: Tolerance = Tolerance { lenient: true };
/// As the most careful endpoint reads what the proxy sends.
pub(super) const ENDPOINT: Tolerance = Tolerance { lenient: false };

/// What is wrong.
pub(super) type Malformed = &'static str;

/// Something that was read, and what follows it; `None` while it is not all there.
type Part<'a, T> = Result<Option<(T, &'a [u8])>, Malformed>;

/// Goes on with a part that is there.
macro_rules! there {
    ($part:expr) => {
        match $part? {
            Some(part) => part,
            None => return Ok(None),
        }
    };
}

/// Reads one request.
pub(super) fn read<'a>(bytes: &'a [u8], tolerance: &Tolerance) -> Part<'a, Request> {
    let (mut line, mut rest) = there!(head_line(bytes, tolerance));
    while line.is_empty() && tolerance.lenient {
        (line, rest) = there!(head_line(rest, tolerance));
    }
    let (method, target, is_1_1) = request_line(line, tolerance)?;
    let (fields, rest) = there!(head_fields(rest, tolerance));
    let mut request = Request { method, target, is_1_1, fields, body: Vec::new(), trailers: Vec::new() };
    let rest = match framing(&request, tolerance)? {
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| "a length beyond all memory")?;
            let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
            request.body = body.to_vec();
            rest
        }
        Framing::Chunked => {
            let ((body, trailers), rest) = there!(chunks(rest));
            (request.body, request.trailers) = (body, trailers);
            rest
        }
    };
    Ok(Some((request, rest)))
}

/// A line without its end.
fn head_line<'a>(bytes: &'a [u8], tolerance: &Tolerance) -> Part<'a, &'a [u8]> {
    if !tolerance.lenient {
        return line(bytes);
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.contains(&b'\r') { Err("a bare CR") } else { Ok(Some((line, &bytes[end + 1..]))) }
}

/// A line that ends with CR LF and has neither within.
fn line(bytes: &[u8]) -> Part<'_, &[u8]> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match &bytes[end..] {
        [b'\r', b'\n', rest @ ..] => Ok(Some((&bytes[..end], rest))),
        [b'\r'] => Ok(None),
        _ => Err("a bare CR or LF"),
    }
}

fn request_line(line: &[u8], tolerance: &Tolerance) -> Result<(String, Vec<u8>, bool), Malformed> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("a request line of other than three words") };
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" if tolerance.lenient => false,
        _ => return Err("another version"),
    };
    if target.is_empty()
        || !target.iter().all(|byte| byte.is_ascii_graphic() || *byte >= 0x80)
        || target.contains(&b'#')
    {
        return Err("no target");
    }
    Ok((token(method)?, target.to_vec(), is_1_1))
}

/// A method or name (RFC 9110 section 5.6.2).
fn token(bytes: &[u8]) -> Result<String, Malformed> {
    let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_char) => Ok(text.to_owned()),
        _ => Err("no token"),
    }
}

fn head_fields<'a>(bytes: &'a [u8], tolerance: &Tolerance) -> Part<'a, Vec<Field>> {
    let (mut fields, mut rest) = (Vec::new(), bytes);
    loop {
        let (line, after) = there!(head_line(rest, tolerance));
        rest = after;
        if line.is_empty() {
            return Ok(Some((fields, rest)));
        }
        let (name, value) = field(line)?;
        if !tolerance.lenient && name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("capitals in a name");
        }
        fields.push((name.to_ascii_lowercase(), value));
    }
}

/// A line of a head or of trailers.
fn field(line: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a line that is no field")?;
    let mut value = &line[colon + 1..];
    while let [b' ' | b'\t', inner @ ..] | [inner @ .., b' ' | b'\t'] = value {
        value = inner;
    }
    let is_char = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !value.iter().all(is_char) {
        return Err("a control character in a value");
    }
    Ok((token(&line[..colon])?, value.to_vec()))
}

/// How a body ends.
enum Framing {
    Length(u64),
    Chunked,
}

fn framing(request: &Request, tolerance: &Tolerance) -> Result<Framing, Malformed> {
    let mut lengths: Vec<u64> = request.all("content-length").map(length).collect::<Result<_, _>>()?;
    lengths.dedup();
    let codings: Vec<&[u8]> = request.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([_], [_, ..]) if !tolerance.lenient => Err("both framings"),
        ([], [_, _, ..]) if !tolerance.lenient => Err("several codings"),
        ([_, _, ..], _) => Err("several lengths"),
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) => Ok(Framing::Length(*length)),
        (_, [.., coding]) if request.is_1_1 => {
            let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                Ok(Framing::Chunked)
            } else {
                Err("another coding")
            }
        }
        _ => Err("a coding in HTTP/1.0"),
    }
}

fn length(value: &[u8]) -> Result<u64, Malformed> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or("no length")
}

/// A chunked body and its trailers.
fn chunks(bytes: &[u8]) -> Part<'_, (Vec<u8>, Vec<Field>)> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let (line, after) = there!(line(rest));
        let size = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
        let text = std::str::from_utf8(size).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or("no size of a chunk")?;
        if size == 0 {
            rest = after;
            break;
        }
        let size = usize::try_from(size).map_err(|_| "a chunk beyond all memory")?;
        let Some((data, after)) = after.split_at_checked(size) else { return Ok(None) };
        let (end, after) = there!(self::line(after));
        if !end.is_empty() {
            return Err("more data than the chunk's size");
        }
        body.extend_from_slice(data);
        rest = after;
    }
    let mut trailers = Vec::new();
    loop {
        let (line, after) = there!(line(rest));
        rest = after;
        if line.is_empty() {
            return Ok(Some(((body, trailers), rest)));
        }
        let (name, value) = field(line)?;
        trailers.push((name.to_ascii_lowercase(), value));
    }
}
