package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"time"
)

// Names of the files in the server's working directory.
const (
	certFile = "server.crt"
	keyFile  = "server.key"
	caFile   = "ca.crt"
)

// authority is what a client needs to trust one server.
type authority struct {
	pool *x509.CertPool
	path string // the authority's certificate, on this machine
}

func (a *authority) clientConfig(host string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: host, MinVersion: tls.VersionTLS12}
}

func (a *authority) remove() { _ = os.Remove(a.path) }

// makeAuthority makes an authority, and a certificate for a server on this machine, and adds the server's files to s.
func makeAuthority(s *spec) (*authority, error) {
	authorityKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serverKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	authorityCert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authorityCert, authorityCert, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return nil, err
	}
	serverCert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: authorityCert.NotBefore, NotAfter: authorityCert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	// A Docker daemon on another machine publishes its ports there.
	if host, err := publishedHost(); err == nil {
		if ip := net.ParseIP(host); ip != nil {
			serverCert.IPAddresses = append(serverCert.IPAddresses, ip)
		} else {
			serverCert.DNSNames = append(serverCert.DNSNames, host)
		}
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, serverCert, authorityCert, &serverKey.PublicKey, authorityKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, err
	}

	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	authorityPEM := block("CERTIFICATE", authorityDER)
	s.files = append(s.files,
		file{certFile, block("CERTIFICATE", serverDER)},
		file{keyFile, block("PRIVATE KEY", keyDER)},
		file{caFile, authorityPEM})

	a := &authority{pool: x509.NewCertPool()}
	a.pool.AppendCertsFromPEM(authorityPEM)
	f, err := os.CreateTemp("", "redistest-*.crt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a.path = f.Name()
	_, err = f.Write(authorityPEM)
	return a, errors.Join(err, removeLater(a.path))
}
