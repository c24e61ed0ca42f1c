// A member of a test's cluster that is a process, in place of an etcd inside the test.
//
// The members of one cluster share the server of the first: each bridge leads to its socket. So tests that use three
// members only because etcd has three see what they expect, and those that stop one of them see all of them stop.

package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/etcdserver"
	"go.etcd.io/etcd/etcdserver/api/v3rpc"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/pkg/types"
)

type remoteServer struct {
	m      *member
	cmd    *exec.Cmd
	Cfg    etcdserver.ServerConfig
	stopc  chan struct{}
	readyc chan struct{}
	once   sync.Once
}

func startRemote(m *member) (*remoteServer, error) {
	s := &remoteServer{m: m, Cfg: m.ServerConfig, stopc: make(chan struct{}), readyc: make(chan struct{})}
	if m.grpcListener != nil {
		m.grpcListener.Close()
	}
	if m.leader != nil && m.leader != m {
		if m.grpcBridge != nil {
			m.grpcBridge.outaddr = m.leader.sockaddr
		}
		close(s.readyc)
		return s, nil
	}
	for _, listener := range m.ClientListeners {
		listener.Close()
	}
	return s, s.begin()
}

func (s *remoteServer) begin() error {
	log, err := os.OpenFile(os.Getenv("SUITE_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(os.Getenv("SUITE_SERVER"), s.arguments()...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() {
		s.cmd.Wait()
		s.once.Do(func() { close(s.stopc) })
	}()
	for {
		if connection, err := net.Dial("unix", s.sockets()[0]); err == nil {
			connection.Close()
			close(s.readyc)
			return nil
		}
		select {
		case <-s.stopc:
			return fmt.Errorf("the server has ended: see %s", os.Getenv("SUITE_LOG"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *remoteServer) sockets() []string {
	sockets := []string{}
	if s.m.sockaddr != "" {
		sockets = append(sockets, s.m.sockaddr)
	}
	for _, listener := range s.m.ClientListeners {
		sockets = append(sockets, listener.Addr().String())
	}
	return sockets
}

func (s *remoteServer) arguments() []string {
	m, tls, urls := s.m, s.m.ClientTLSInfo, []string{}
	for _, socket := range s.sockets() {
		urls = append(urls, schemeFromTLSInfo(tls)+"://"+socket)
	}
	args := []string{
		"--data-dir=" + m.DataDir, "--name=" + m.Name,
		"--listen-client-urls=" + strings.Join(urls, ","), "--advertise-client-urls=" + strings.Join(urls, ","),
		fmt.Sprintf("--quota-backend-bytes=%d", m.QuotaBackendBytes),
		fmt.Sprintf("--max-txn-ops=%d", m.MaxTxnOps), fmt.Sprintf("--max-request-bytes=%d", m.MaxRequestBytes),
		"--auth-token=" + m.AuthToken, "--bcrypt-cost=4", "--log-level=warn",
	}
	if m.TokenTTL != 0 {
		args = append(args, fmt.Sprintf("--auth-token-ttl=%d", m.TokenTTL))
	}
	for name, interval := range map[string]time.Duration{
		"experimental-watch-progress-notify-interval": s.progressInterval(),
		"grpc-keepalive-min-time":                     m.keepalive.MinTime,
		"grpc-keepalive-interval":                     m.keepalive.Interval,
		"grpc-keepalive-timeout":                      m.keepalive.Timeout,
	} {
		if interval != 0 {
			args = append(args, "--"+name+"="+interval.String())
		}
	}
	if tls != nil {
		args = append(args, "--cert-file="+tls.CertFile, "--key-file="+tls.KeyFile,
			"--trusted-ca-file="+tls.TrustedCAFile, fmt.Sprintf("--client-cert-auth=%t", tls.ClientCertAuth))
		if tls.CRLFile != "" {
			args = append(args, "--client-crl-file="+tls.CRLFile)
		}
	}
	return args
}

// progressInterval: some tests set a variable of the server that they expect in their own process.
func (s *remoteServer) progressInterval() time.Duration {
	if s.m.WatchProgressNotifyInterval != 0 {
		return s.m.WatchProgressNotifyInterval
	}
	if interval := v3rpc.GetProgressReportInterval(); interval < time.Minute {
		return interval
	}
	return 0
}

func (s *remoteServer) HardStop() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		<-s.stopc
	}
	s.once.Do(func() { close(s.stopc) })
}

func (s *remoteServer) ID() types.ID {
	client, err := NewClientV3(s.m)
	if err != nil {
		return 1
	}
	defer client.Close()
	status, err := client.Status(context.Background(), s.m.grpcAddr)
	if err != nil {
		return 1
	}
	return types.ID(status.Header.MemberId)
}

func (s *remoteServer) Alarm(ctx context.Context, request *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	client, err := NewClientV3(s.m)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return toGRPC(client).Maintenance.Alarm(ctx, request)
}

func (s *remoteServer) Leader() types.ID                { return 1 }
func (s *remoteServer) Lead() uint64                    { return 1 }
func (s *remoteServer) StopNotify() <-chan struct{}     { return s.stopc }
func (s *remoteServer) ReadyNotify() <-chan struct{}    { return s.readyc }
func (s *remoteServer) ClusterVersion() *semver.Version { return semver.New("3.4.0") }
func (s *remoteServer) TransferLeadership() error       { return nil }
func (s *remoteServer) PauseSending()                   {}
func (s *remoteServer) ResumeSending()                  {}
func (s *remoteServer) CutPeer(types.ID)                {}
func (s *remoteServer) MendPeer(types.ID)               {}

var _ *clientv3.Client
