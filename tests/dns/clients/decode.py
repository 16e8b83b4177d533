"""Asks a server for everything in a zone file, and for what is not in it, and compares: packets are written, read and
judged by dnspython alone.

decode.py ADDRESS PORT ZONEFILE
"""

import sys

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone

address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
zone = dns.zone.from_file(path, origin="maesh.", relativize=False)
TYPES = ["A", "AAAA", "SRV", "TXT", "SOA", "NS", "MX", "HTTPS", "TYPE1000"]


def exists(name):
    return any(node.is_subdomain(name) for node in zone.nodes)


def same(one, other):
    """The same records; an SOA without its serial."""
    key = lambda rdata: rdata.replace(serial=0).to_text() if rdata.rdtype == dns.rdatatype.SOA else rdata.to_text()
    return one.ttl == other.ttl and sorted(map(key, one)) == sorted(map(key, other))


def check(name, rdtype, ecs, tcp):
    options = [dns.edns.ECSOption(*ecs)] if ecs else []
    query = dns.message.make_query(name, rdtype, use_edns=0 if ecs else False, options=options)
    wire = query.to_wire()
    ask = dns.query.tcp if tcp else dns.query.udp
    # Anything after the message's end is an error, and so is a question that differs.
    reply = ask(query, address, port=port, timeout=20)
    if reply.flags & dns.flags.TC:
        assert not tcp, "truncated over TCP"
        return check(name, rdtype, ecs, True)
    what = f"{name} {rdtype} {ecs} {'TCP' if tcp else 'UDP'}: {reply}"
    assert reply.flags & dns.flags.AA and not reply.flags & dns.flags.RA, what
    assert reply.question == query.question, what
    wanted = zone.find_node(name, create=False).get_rdataset(zone.rdclass, dns.rdatatype.from_text(rdtype)) \
        if name in zone.nodes else None
    code = dns.rcode.NOERROR if exists(name) else dns.rcode.NXDOMAIN
    assert reply.rcode() == code, what
    if wanted is None:
        assert not reply.answer, what
        soa = reply.authority[0]
        assert soa.name == zone.origin and soa.ttl == 5 == soa[0].minimum, what
    else:
        assert len(reply.answer) == 1 and reply.answer[0].name == name and same(reply.answer[0], wanted), what
        assert not reply.authority, what
    if ecs:
        assert reply.edns == 0 and reply.payload == 1232, what
        [echo] = reply.options
        assert (echo.address, echo.srclen, echo.scopelen) == (ecs[0], ecs[1], 0), what
    else:
        assert reply.edns == -1, what
    # It means the same once dnspython has written it anew.
    again = dns.message.from_wire(reply.to_wire())
    assert again.answer == reply.answer and again.additional == reply.additional, what
    return 1


names = {node for node in zone.nodes}
for node in zone.nodes:
    while node != zone.origin:
        node = node.parent()
        names.add(node)
names |= {dns.name.from_text(text) for text in ["nope.shop.maesh.", "x.web.shop.maesh.", "nope.maesh.", "_udp.web.shop.maesh."]}
count = 0
for name in sorted(names):
    for rdtype in TYPES:
        for ecs in [None, ("10.1.1.10", 32), ("10.1.1.0", 24), ("fd00:1::10", 128)]:
            for tcp in [False, True]:
                count += check(name, rdtype, ecs, tcp)
print(count)
