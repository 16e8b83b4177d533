//! The program `maesh`, as a person or Kubernetes runs it. One test program, because each one more takes its time to be linked.

mod admin;
mod bad_input;
mod bad_values;
mod check;
mod churn;
mod crowd;
mod dev;
mod dns_certificate;
mod dns_peers;
mod explain;
mod hostile_text;
mod hung_proxy;
mod keeper;
mod metrics;
mod open_files;
mod own;
mod policies;
mod quickstart;
mod standard_output;
mod stanza;
mod support;
mod tasks;
mod trust;
mod twin;
mod uninstall;
mod zone;
