package adapters

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	certlock "github.com/lockstep-go/lockstep/adapters/certmagic"
	"github.com/lockstep-go/lockstep/locker"
)

// authority is an issuer that signs at once, and counts.
type authority struct {
	key    *ecdsa.PrivateKey
	issued atomic.Int32
	takes  time.Duration
}

func newAuthority(t *testing.T, takes time.Duration) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key, takes: takes}
}

func (*authority) IssuerKey() string { return "test" }

func (a *authority) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	n := a.issued.Add(1)
	time.Sleep(a.takes)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(n) + 1), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func wrap(t *testing.T, f *fleet, s certmagic.Storage, o certlock.Options) *certlock.Storage {
	t.Helper()
	w, err := certlock.New(s, f.open(nil), o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Of several processes with one storage, one obtains the certificate, and the others find it.
func TestCertmagic(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		ca, dir := newAuthority(t, 200*time.Millisecond), t.TempDir()
		var wg sync.WaitGroup
		for i := range 5 {
			var cfg *certmagic.Config
			cache := certmagic.NewCache(certmagic.CacheOptions{
				GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil },
				Logger:           zap.NewNop(),
			})
			t.Cleanup(cache.Stop)
			cfg = certmagic.New(cache, certmagic.Config{
				Storage: wrap(t, f, &certmagic.FileStorage{Path: dir}, certlock.Options{}),
				Issuers: []certmagic.Issuer{ca}, Logger: zap.NewNop(), DisableARI: true,
			})
			obtain := cfg.ObtainCertSync
			if i%2 == 0 {
				obtain = cfg.ObtainCertAsync // renews the lease of its lock
			}
			wg.Go(func() {
				if err := obtain(t.Context(), "example.com"); err != nil {
					t.Errorf("process %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := ca.issued.Load(); n != 1 {
			t.Errorf("%d certificates were issued, want 1", n)
		}
	})
}

// The locks keep certmagic.Locker's and TryLocker's contract.
func TestCertmagicLocks(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		ctx := t.Context()
		a := wrap(t, f, &certmagic.FileStorage{Path: t.TempDir()}, certlock.Options{TTL: 3 * time.Second})
		b := wrap(t, f, &certmagic.FileStorage{Path: t.TempDir()}, certlock.Options{TTL: 3 * time.Second})

		inside, n := 0, 0
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for range 20 {
					s := []*certlock.Storage{a, b}[i%2]
					if err := s.Lock(ctx, "one"); err != nil {
						t.Error(err)
						return
					}
					if inside++; inside != 1 {
						t.Errorf("%d have the lock", inside)
					}
					n++
					inside--
					if err := s.Unlock(ctx, "one"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n != 160 {
			t.Errorf("%d rounds, want 160", n)
		}

		if ok, err := a.TryLock(ctx, "two"); !ok || err != nil {
			t.Fatalf("TryLock of a free name: %t, %v", ok, err)
		}
		for _, s := range []*certlock.Storage{a, b} {
			if ok, err := s.TryLock(ctx, "two"); ok || err != nil {
				t.Errorf("TryLock of a name that is locked: %t, %v", ok, err)
			}
		}
		if ok, err := b.TryLock(ctx, "three"); !ok || err != nil {
			t.Errorf("TryLock of another name: %t, %v", ok, err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if err := b.Lock(short, "two"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock with a ctx that ends: %v", err)
		}
		if err := b.Unlock(ctx, "two"); !errors.Is(err, locker.ErrReleased) {
			t.Errorf("Unlock of another's lock: %v", err)
		}
		if err := a.RenewLockLease(ctx, "two", time.Hour); err != nil {
			t.Errorf("RenewLockLease: %v", err)
		}
		dead, cancel := context.WithCancel(ctx)
		cancel()
		if err := a.Unlock(dead, "two"); err != nil {
			t.Errorf("Unlock with a ctx that has ended: %v", err)
		}
		if ok, err := b.TryLock(ctx, "two"); !ok || err != nil {
			t.Errorf("TryLock after the Unlock: %t, %v", ok, err)
		}
	})
}

// A lock outlasts its ttl, and a lost one is reported before the next attempt.
func TestCertmagicRenewal(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		const ttl = 1500 * time.Millisecond
		ctx := t.Context()
		a := wrap(t, f, &certmagic.FileStorage{}, certlock.Options{TTL: ttl})
		b := wrap(t, f, &certmagic.FileStorage{}, certlock.Options{TTL: ttl})
		if err := a.Lock(ctx, "long"); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 3*ttl)
		defer cancel()
		if err := b.Lock(short, "long"); !errors.Is(err, locker.ErrHeld) {
			t.Errorf("after three times the ttl: %v", err)
		}
		if f.lose == nil {
			return // nobody can take a lock in memory away
		}
		f.lose("certmagic/long")
		eventually(t, "RenewLockLease says that the lock was lost", func() bool {
			return errors.Is(a.RenewLockLease(ctx, "long", time.Hour), locker.ErrLost)
		})
		// Another caller in the same process has it now: the first one's Unlock must not free it.
		if err := a.Lock(ctx, "long"); err != nil {
			t.Fatal(err)
		}
		if err := a.Unlock(ctx, "long"); err != nil {
			t.Errorf("Unlock of a lost lock: %v", err)
		}
		if ok, err := b.TryLock(ctx, "long"); ok || err != nil {
			t.Errorf("the Unlock of the lost lock freed the later one: %t, %v", ok, err)
		}
		if err := a.Unlock(ctx, "long"); err != nil {
			t.Error(err)
		}
		if ok, err := b.TryLock(ctx, "long"); !ok || err != nil {
			t.Errorf("after both Unlocks: %t, %v", ok, err)
		}
	})
}
