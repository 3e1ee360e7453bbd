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
)

// authority is what a client needs to trust one server.
type authority struct {
	pool *x509.CertPool
	path string // the certificate, on this machine
}

func (a *authority) clientConfig(host string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: host, MinVersion: tls.VersionTLS12}
}

func (a *authority) remove() { _ = os.Remove(a.path) }

// makeAuthority makes a certificate for a server on this machine, which is its own authority, and adds the server's
// files to s.
func makeAuthority(s *spec) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	certDER, err1 := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	keyDER, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})
	s.files = append(s.files,
		file{certFile, certPEM},
		file{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})})

	a := &authority{pool: x509.NewCertPool()}
	a.pool.AppendCertsFromPEM(certPEM)
	f, err := os.CreateTemp("", "redistest-*.crt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a.path = f.Name()
	_, err = f.Write(certPEM)
	return a, errors.Join(err, removeLater(a.path))
}
