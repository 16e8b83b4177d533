//! Putting the stanza into a Corefile, and taking it out.

use std::ops::Range;

use maesh_config::Zone;

use super::{
    KEPT, NotUnderstood, Stanza,
    corefile::{Block, BlockAddress, Corefile, parse},
    lexer::{Lexed, byte_order_mark, lex},
    own_lines::{self, MarkerState, OwnLines, TlsStanza, line_at, whole_lines},
};

/// Traefik Mesh's marks around its blocks, of all its versions: beginning and end.
const TRAEFIK: [(&str, &str); 2] = [
    ("#### Begin Maesh Block", "#### End Maesh Block"),
    ("#### Begin Traefik Mesh Block", "#### End Traefik Mesh Block"),
];

/// How a Corefile stands to the stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StanzaState {
    /// Nothing of the mesh's is in it.
    Absent,
    /// It is there, as it should be.
    Present,
    /// It is there, alone and whole, and says something else: another address, port, zone or plugin.
    Outdated,
    /// Half of it is there, or several of it, or one with what it replaced.
    Broken,
}

/// What the stanza must know of a Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The port that the cluster's DNS listens on.
    pub port: Option<u16>,
    /// Patterns of files that are imported as further blocks.
    pub imports: Vec<String>,
    /// Changes are taken up without a restart.
    pub reloads: bool,
    /// The zone of the cluster's own names.
    pub cluster_domain: Option<String>,
}

/// Reads what the stanza must know of a Corefile.
///
/// # Errors
/// If CoreDNS could not start with it.
pub fn facts(corefile: &str) -> Result<Facts, NotUnderstood> {
    let lexed = lex(corefile);
    let found = parse(&lexed.words)?;
    let root = |block: &Block<'_>| block.addresses().find(|address| address.zone.is_empty()).map(|root| root.port);
    let has = |block: &Block<'_>, plugin: &str| block.lines().any(|line| line[0].text == plugin);
    let ports: Vec<u16> = found.blocks.iter().filter_map(root).collect();
    // Without a block for everything, the one that answers for the cluster's own names.
    let cluster = || {
        let cluster = found.blocks.iter().find(|block| has(block, "kubernetes"));
        cluster.and_then(|block| block.addresses().next()).map(|address| address.port)
    };
    let kubernetes = |block: &Block<'_>| {
        let line = block.lines().find(|line| line[0].text == "kubernetes").map(<[_]>::to_vec)?;
        let zone = line.get(1).map(|word| word.text.clone()).filter(|word| word != "{");
        zone.or_else(|| block.addresses().next().map(|address| address.zone))
    };
    Ok(Facts {
        port: ports.iter().find(|port| **port == 53).or_else(|| ports.first()).copied().or_else(cluster),
        imports: found.imports.iter().map(|&pattern| pattern.to_owned()).collect(),
        reloads: found.blocks.iter().any(|block| has(block, "reload")),
        cluster_domain: found.blocks.iter().find_map(kubernetes).filter(|zone| !zone.is_empty()),
    })
}

/// How a Corefile stands to `stanza`.
///
/// # Errors
/// If it is not understood.
pub fn state(corefile: &str, stanza: &Stanza) -> Result<StanzaState, NotUnderstood> {
    let ours = own_lines::find(corefile, &is_ours(&stanza.zones))?;
    if over_tls(corefile, &ours, stanza)? {
        return Ok(StanzaState::Present);
    }
    match &ours.spans[..] {
        [] if ours.kept.is_empty() => Ok(StanzaState::Absent),
        [one] if one.marks != MarkerState::One => {
            // What must rest beside it rests, and nothing else does.
            let beside = ours.cut(corefile);
            let meant = with_others_resting(&ours.taken_out(corefile), stanza)?;
            let text = corefile[one.at.clone()].replace('\r', "");
            let says = match one.marks {
                MarkerState::None => words(&text) == words(&stanza.block()),
                _ => text == stanza.text(),
            };
            Ok(match (says, beside == meant) {
                (true, true) => StanzaState::Present,
                (false, true) => StanzaState::Outdated,
                (_, false) => StanzaState::Broken,
            })
        }
        _ => Ok(StanzaState::Broken),
    }
}

/// Whether a person's stanza over TLS does here what `stanza` does, alone. It is as good, and is left as it is.
///
/// # Errors
/// If there is one that does not: only its owner knows what it should say.
fn over_tls(corefile: &str, ours: &OwnLines, stanza: &Stanza) -> Result<bool, NotUnderstood> {
    let Some(tls) = ours.over_tls.first() else { return Ok(false) };
    let wanted = |address: &BlockAddress| is_ours(&stanza.zones)(address) && address.port == stanza.port;
    let has = |zone: &Zone| tls.zones.iter().any(|address| zone.as_str().eq_ignore_ascii_case(&address.zone));
    let is_right = tls.forward == stanza.forward
        && tls.zones.iter().all(wanted)
        && stanza.zones.iter().all(has)
        && ours.spans.len() == 1
        && with_others_resting(&ours.taken_out(corefile), stanza)? == ours.cut(corefile);
    if is_right { Ok(true) } else { Err(not_alone(corefile, tls, stanza)) }
}

fn not_alone(corefile: &str, tls: &TlsStanza, stanza: &Stanza) -> NotUnderstood {
    let zones: Vec<_> = stanza.zones.iter().map(|zone| format!("{zone}:{}", stanza.port)).collect();
    let wanted = format!("{} to {}", zones.join(" "), stanza.forward);
    NotUnderstood::Tls { line: line_at(corefile, tls.start), wanted }
}

/// Whether a person's stanza over TLS in this text does what `stanza` does.
///
/// # Errors
/// If the text is not understood, or has one that does something else.
pub(super) fn has_tls_stanza(corefile: &str, stanza: &Stanza) -> Result<bool, NotUnderstood> {
    over_tls(corefile, &own_lines::find(corefile, &is_ours(&stanza.zones))?, stanza)
}

/// Puts `stanza` in, in place of whatever was left of one, and lets blocks of Traefik Mesh for the same zones rest. A
/// text in which it is right already is returned as it is.
///
/// # Errors
/// If the text is not understood, or one of the zones is served by somebody else.
pub fn add(corefile: &str, stanza: &Stanza) -> Result<String, NotUnderstood> {
    if state(corefile, stanza)? == StanzaState::Present {
        return Ok(corefile.to_owned());
    }
    let own = is_ours(&stanza.zones);
    let before = own_lines::find(corefile, &own)?.taken_out(corefile);
    let resting = with_others_resting(&before, stanza)?;
    // At the beginning, where nothing depends on how the rest ends.
    let (mark, rest) = resting.split_at(byte_order_mark(&resting));
    let after = format!("{mark}{}{rest}", stanza.text());
    let undone = own_lines::find(&after, &own)?.taken_out(&after);
    if undone != before || state(&after, stanza)? != StanzaState::Present {
        return Err(NotUnderstood::Irreversible);
    }
    parse(&lex(&after).words)?;
    Ok(after)
}

/// Takes out every stanza of the mesh, whole or half, and gives back what was kept for others. `zones` are the mesh's:
/// by them, a stanza without marks is known.
///
/// # Errors
/// If half a stanza cannot be told from what is not ours. Everything else is taken out even of a text that is broken.
pub fn remove(corefile: &str, zones: &[Zone]) -> Result<String, NotUnderstood> {
    let ours = own_lines::find(corefile, &is_ours(zones))?;
    Ok(if ours.is_empty() { corefile.to_owned() } else { ours.taken_out(corefile) })
}

/// What a text beside the one with `stanza` must be, another file that CoreDNS imports: without a stanza of ours, and
/// with blocks of Traefik Mesh for the same zones at rest. [`remove`] undoes it.
///
/// # Errors
/// If the text is not understood, or one of the zones is served by somebody else.
pub fn beside(corefile: &str, stanza: &Stanza) -> Result<String, NotUnderstood> {
    let own = is_ours(&stanza.zones);
    let there = own_lines::find(corefile, &own)?;
    if let Some(tls) = there.over_tls.first() {
        return Err(not_alone(corefile, tls, stanza));
    }
    let before = there.taken_out(corefile);
    let resting = with_others_resting(&before, stanza)?;
    if own_lines::find(&resting, &own)?.taken_out(&resting) != before {
        return Err(NotUnderstood::Irreversible);
    }
    Ok(resting)
}

fn is_ours(zones: &[Zone]) -> impl Fn(&BlockAddress) -> bool {
    |address| zones.iter().any(|zone| zone.as_str().eq_ignore_ascii_case(&address.zone))
}

fn words(text: &str) -> Vec<String> {
    lex(text).words.into_iter().map(|word| word.text).collect()
}

/// `corefile`, which has nothing of ours, with Traefik Mesh's blocks for our zones made comments.
fn with_others_resting(corefile: &str, stanza: &Stanza) -> Result<String, NotUnderstood> {
    let lexed = lex(corefile);
    let found = parse(&lexed.words)?;
    let collides = |address: &BlockAddress| is_ours(&stanza.zones)(address) && address.port == stanza.port;
    let taken: Vec<_> = found.blocks.iter().filter(|block| block.addresses().any(|a| collides(&a))).collect();
    let regions = traefik(corefile, &lexed, &found)?;
    let mut resting = String::with_capacity(corefile.len());
    let mut from = 0;
    for region in regions.iter().filter(|region| taken.iter().any(|block| within(&block.span, region))) {
        resting.push_str(&corefile[from..region.start]);
        for line in corefile[region.clone()].split_inclusive('\n') {
            resting.push_str(KEPT);
            resting.push_str(line);
        }
        from = region.end;
    }
    resting.push_str(&corefile[from..]);
    match taken.iter().find(|block| !regions.iter().any(|region| within(&block.span, region))) {
        None => Ok(resting),
        Some(block) => {
            let zone = block.addresses().find(collides).map(|address| address.zone).unwrap_or_default();
            Err(NotUnderstood::Taken { line: line_at(corefile, block.span.start), zone })
        }
    }
}

/// Whole lines between Traefik Mesh's marks, which hold whole blocks.
fn traefik(text: &str, lexed: &Lexed, found: &Corefile<'_>) -> Result<Vec<Range<usize>>, NotUnderstood> {
    let mut regions = Vec::new();
    let mut open: Option<(Range<usize>, &str)> = None;
    for line in lexed.comments.iter().filter_map(|comment| whole_lines(text, comment)) {
        let words = text[line.clone()].trim();
        if let Some((_, end)) = TRAEFIK.iter().find(|(begin, _)| *begin == words) {
            open = Some((line, end));
        } else if let Some((begin, _)) = open.take_if(|(_, end)| *end == words) {
            let region = begin.start..line.end;
            let cut = found.blocks.iter().find(|block| {
                let overlaps = block.span.start < region.end && block.span.end > region.start;
                overlaps && !within(&block.span, &region)
            });
            match cut {
                None => regions.push(region),
                Some(block) => {
                    return Err(NotUnderstood::Syntax {
                        line: line_at(text, block.span.start),
                        what: "a mark of Traefik Mesh stands inside this block",
                    });
                }
            }
        }
    }
    Ok(regions)
}

fn within(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
