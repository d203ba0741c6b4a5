//! hyper and TLS: authentication, audit, authorization, admission, registry; discovery, negotiation and watch framing.
