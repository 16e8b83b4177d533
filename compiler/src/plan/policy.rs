//! The policies of one port, from the annotations in force for it.

use std::time::Duration;

use maesh_config::{
    ServiceName,
    model::Protocol,
    policy::{
        BackendPolicy, Balance, CalledPolicy, Eject, EndpointTls, Fault, Mirror, RateLimit, Retry, Scheme, ServiceRef,
        TlsRoots,
    },
};

use super::annotations::{
    self, Annotation, AppliedAnnotation, InForce, WrittenAnnotation,
    balance::{BALANCE, EJECT, EJECT_MAX},
    breaker::{BREAKER, CONCURRENCY_OF_A_PORT},
    fault::{FAULT_ABORT, FAULT_DELAY, FAULT_UNTIL},
    rate_limit::{AVERAGE, BURST, COUNTED_BY},
    retry::{ATTEMPTS_OF_A_REQUEST, RETRY_BUDGET, RETRY_ON},
    target::{FALLBACK, HEDGE_AFTER, MIRROR_TO, Target},
    timeout::{CONNECT, IDLE, REQUEST, TRY},
    tls::{CA, SERVER_NAME},
};
use super::reference::{Unusable, unusable};
use crate::{
    diagnostic::{Diagnostic, Reason},
    index::FoundConfigMap,
    kinds::Service,
    step::Step,
};

/// Longest silence of a UDP flow.
const UDP_IDLE: Duration = Duration::from_secs(60);

/// Reads the policies of one port.
pub(super) struct PolicyReader<'a, 'v> {
    pub(super) service: &'a Service,
    pub(super) number: u16,
    pub(super) name: Option<&'a str>,
    pub(super) protocol: Protocol,
    pub(super) in_force: InForce<'a>,
    pub(super) step: &'a Step<'v>,
    /// What is wrong with values that are right by themselves.
    pub(super) found: &'a mut Vec<Diagnostic>,
    /// Turns true if something that the policies depend on has not been read yet.
    pub(super) waits: &'a mut bool,
}

impl<'a> PolicyReader<'a, '_> {
    /// The policies; `scheme` is what endpoints are spoken to in.
    pub(super) fn read(&mut self, scheme: Scheme) -> (CalledPolicy, BackendPolicy) {
        let called = if self.protocol == Protocol::Http { self.called() } else { CalledPolicy::default() };
        let backend = self.backend(scheme);
        (called, backend)
    }

    fn called(&mut self) -> CalledPolicy {
        self.needs(
            &RETRY_ON,
            "retry-attempts above 1",
            self.value(&ATTEMPTS_OF_A_REQUEST).is_some_and(|tries| tries > 1),
        );
        self.needs(&BURST, "ratelimit-average", self.value(&AVERAGE).is_some());
        self.needs(&COUNTED_BY, "ratelimit-average", self.value(&AVERAGE).is_some());
        let faulty = self.value(&FAULT_DELAY).is_some() || self.value(&FAULT_ABORT).is_some();
        self.needs(&FAULT_UNTIL, "fault-delay or fault-abort", faulty);
        let limit = |time: Duration| (!time.is_zero()).then_some(time);
        CalledPolicy {
            retry: Retry {
                attempts: self.value(&ATTEMPTS_OF_A_REQUEST).unwrap_or(1),
                on: self.value(&RETRY_ON).unwrap_or_default(),
                budget: self.value(&RETRY_BUDGET).unwrap_or_default(),
            },
            request_timeout: self.value(&REQUEST).and_then(limit),
            try_timeout: self.value(&TRY).and_then(limit),
            rate_limit: self.value(&AVERAGE).map(|average| RateLimit {
                average,
                burst: self.value(&BURST).unwrap_or(average),
                by: self.value(&COUNTED_BY).unwrap_or_default(),
            }),
            hedge: self.value(&HEDGE_AFTER),
            mirror: self.mirror(),
            fault: self.fault(),
            not_understood: None,
        }
    }

    fn backend(&mut self, scheme: Scheme) -> BackendPolicy {
        let udp = self.protocol == Protocol::Udp;
        let defaults = BackendPolicy::default();
        let (concurrency, queue) = self.value(&CONCURRENCY_OF_A_PORT).unwrap_or((defaults.concurrency, None));
        BackendPolicy {
            scheme,
            tls: self.tls(scheme),
            balance: self.balance(),
            local_only: self.service.local_only,
            connect_timeout: self.value(&CONNECT).unwrap_or(defaults.connect_timeout),
            idle_timeout: match self.value(&IDLE) {
                Some(time) => (!time.is_zero()).then_some(time),
                None if udp => Some(UDP_IDLE),
                None => defaults.idle_timeout,
            },
            concurrency,
            queue,
            eject: Eject {
                failures: self.value(&EJECT).unwrap_or(defaults.eject.failures),
                most_percent: self.value(&EJECT_MAX).unwrap_or(defaults.eject.most_percent),
            },
            breaker: self.value(&BREAKER),
            fallback: self.fallback(),
            not_understood: None,
        }
    }

    /// What endpoints are verified against, where they are spoken to over TLS.
    fn tls(&mut self, scheme: Scheme) -> Option<Box<EndpointTls>> {
        let https = scheme == Scheme::Https;
        if self.protocol == Protocol::Http {
            self.needs(&SERVER_NAME, "scheme: https", https);
            self.needs(&CA, "scheme: https", https);
        }
        if !https {
            return None;
        }
        let meta = &self.service.meta;
        let server_name =
            self.value(&SERVER_NAME).unwrap_or_else(|| format!("{}.{}.svc", meta.name, meta.namespace)).into();
        Some(Box::new(EndpointTls { server_name, roots: self.roots() }))
    }

    fn roots(&mut self) -> TlsRoots {
        // Without a usable name nobody is trusted: the system's authorities are not what was asked for.
        let Some(AppliedAnnotation { written, value }) = self.get(&CA) else { return TlsRoots::System };
        let Some(name) = value else { return TlsRoots::Unusable("tls-ca does not name a ConfigMap".into()) };
        let id = ServiceName::new(self.service.meta.namespace.clone(), name);
        let create = "Create it with the certificate of the authority under ca.crt, or correct the name.";
        let (why, then) = match self.step.view.config_map(&id) {
            FoundConfigMap::There(map) => match &map.ca {
                Ok(certificates) => return TlsRoots::Certificates(certificates.clone()),
                Err(why) => (format!("ConfigMap {id} {why}"), "Write the certificates of the authority there, in PEM."),
            },
            FoundConfigMap::Unknown => {
                *self.waits = true;
                return TlsRoots::Unusable(format!("ConfigMap {id} has not been read yet").into());
            }
            FoundConfigMap::Absent => (format!("ConfigMap {id} does not exist"), create),
            FoundConfigMap::Unreadable(why) => (
                format!("ConfigMap {id} cannot be read ({why})"),
                "Let the controller get, list and watch configmaps: value tlsCa.enabled of the chart.",
            ),
        };
        let text = format!(
            "annotation {} is {:?}, but {why}: no endpoint can be verified, so requests to port {} are answered 502. {then}",
            written.key, written.text, self.number
        );
        self.say(written, text, "no authority");
        TlsRoots::Unusable(why.into())
    }

    /// How endpoints are picked: as the annotation says, where the port's protocol can, else as `sessionAffinity` says.
    fn balance(&mut self) -> Balance {
        let affinity = self.service.affinity.map(|timeout| Balance::SourceHash { timeout });
        let Some(AppliedAnnotation { written, value: Some(asked) }) = self.get(&BALANCE) else {
            return affinity.unwrap_or(Balance::P2c);
        };
        let reads_heads = matches!(asked, Balance::HeaderHash(_) | Balance::CookieHash(_) | Balance::Sticky(_));
        if reads_heads && self.protocol != Protocol::Http {
            let using = affinity.unwrap_or(Balance::P2c);
            if written.on_service {
                let text = format!(
                    "annotation {} is {:?}, but port {} is {}, which has no header fields; using {using}. Narrow the \
                     annotation to HTTP ports, or set it to hash:source.",
                    written.key, written.text, self.number, self.protocol
                );
                self.say(written, text, &using.to_string());
            }
            return using;
        }
        match (asked, affinity) {
            // The timeout is the Service's own.
            (Balance::SourceHash { .. }, Some(affinity)) => affinity,
            (asked, _) => asked,
        }
    }

    fn mirror(&mut self) -> Option<Mirror> {
        let AppliedAnnotation { written, value: Some((target, share)) } = self.get(&MIRROR_TO)? else { return None };
        let to = self.resolve(written, &target)?;
        Some(Mirror { to, share })
    }

    fn fallback(&mut self) -> Option<ServiceRef> {
        if self.protocol == Protocol::Udp {
            return None;
        }
        let AppliedAnnotation { written, value: Some(target) } = self.get(&FALLBACK)? else { return None };
        self.resolve(written, &target)
    }

    /// The port that `target` names. Says so if there is none, or if it is the port itself.
    fn resolve(&mut self, written: WrittenAnnotation<'a>, target: &Target) -> Option<ServiceRef> {
        let own = ServiceName::new(self.service.meta.namespace.clone(), self.service.meta.name.clone());
        let to = target.seen_from(&own, self.number);
        let (why, keeps) = if to.service == own && to.port == self.number {
            ("is this port itself; it is ignored. Name another Service.".to_owned(), false)
        } else {
            let Some(Unusable { what, next }) = unusable(&to.service, to.port, self.protocol, self.step) else {
                return Some(to);
            };
            (format!("names {what}; it has no effect until that changes. {next}, or correct the name."), true)
        };
        let text = format!("annotation {} is {:?}: it {why}", written.key, written.text);
        self.say(written, text, "nothing");
        keeps.then_some(to)
    }

    fn fault(&mut self) -> Option<Fault> {
        let (delay, abort) = (self.value(&FAULT_DELAY), self.value(&FAULT_ABORT));
        if delay.is_none() && abort.is_none() {
            return None;
        }
        let until = self.value(&FAULT_UNTIL).and_then(|until| until.as_second().try_into().ok());
        if until.is_none() {
            let written =
                self.get(&FAULT_DELAY).map(|it| it.written).or_else(|| self.get(&FAULT_ABORT).map(|it| it.written))?;
            let text = format!(
                "annotation {} is {:?}, but fault-until is missing, so that it would never end; it is ignored. Set \
                 fault-until to the time when it ends, such as 2030-01-31T12:00:00Z.",
                written.key, written.text
            );
            self.say(written, text, "nothing");
        }
        Some(Fault { delay, abort, until: until? })
    }

    /// Says that `annotation` has no effect, where it stands on the Service without what it needs.
    fn needs<T>(&mut self, annotation: &Annotation<T>, other: &str, is_there: bool) {
        if let Some(AppliedAnnotation { written, value: Some(_) }) = self.get(annotation)
            && written.on_service
            && !is_there
        {
            let text = format!(
                "annotation {} is {:?}, but has no effect without {other}; it is ignored. Set {other}, or remove it.",
                written.key, written.text
            );
            self.say(written, text, "nothing");
        }
    }

    fn say(&mut self, written: WrittenAnnotation<'_>, text: String, using: &str) {
        let field = annotations::field(written.key);
        let bad = Diagnostic::of(Reason::InvalidAnnotation, "Service", &self.service.meta, &field, text);
        let bad = bad.value(written.text).using(using);
        // Said once, however many ports it covers.
        if !self.found.contains(&bad) {
            self.found.push(bad);
        }
    }

    pub(super) fn get<T>(&self, annotation: &Annotation<T>) -> Option<AppliedAnnotation<'a, T>> {
        self.in_force.of_port(annotation, self.number, self.name)
    }

    fn value<T>(&self, annotation: &Annotation<T>) -> Option<T> {
        self.get(annotation)?.value
    }
}
