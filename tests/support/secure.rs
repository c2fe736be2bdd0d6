//! An HTTPS server on loopback.
//!
//! In: a router. Out: the address, and the CA certificate. The server ends with its runtime.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::serve::Listener;
use burstpool::emulator::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Serves `router`. Returns the address, and the certificate to trust in PEM.
pub async fn serve(router: Router) -> (SocketAddr, String) {
    let loopback = tls::loopback().expect("certificates");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let secure = Secure {
        listener,
        acceptor: loopback.server.into(),
    };
    tokio::spawn(async move { axum::serve(secure, router).await });
    (address, loopback.ca_pem)
}

struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = Listener::accept(&mut self.listener).await;
            // A client that does not trust the certificate disconnects.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Listener::local_addr(&self.listener)
    }
}
