// A service with franz-go. Scenarios: ../README.md.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

type security struct {
	Mechanism, User, Password, CA, Cert, Key string
	TokenSeconds                             int64 `json:"token_seconds"`
}

type producing struct {
	Acks        string
	Idempotent  bool
	Compression string
	LingerMs    *int `json:"linger_ms"`
}

type scenario struct {
	producing
	Role, Bootstrap, Topic, Group, Protocol, Commit, Instance, End string
	ClientID                                                       string `json:"client_id"`
	Security                                                       security
	Count, Bytes, Records                                          int
	Partition                                                      *int32
	Keys, Topics                                                   []string
	Headers                                                        [][2]*string
	EveryMs                                                        int  `json:"every_ms"`
	MaxBatch                                                       int  `json:"max_batch"`
	SessionMs                                                      int  `json:"session_ms"`
	ReadCommitted                                                  bool `json:"read_committed"`
	Transaction                                                    *struct {
		ID    string
		Size  int
		Abort []int
	}
	To *struct {
		producing
		Topic, Transaction string
		Abort              []int
	}
}

var (
	plan  scenario
	mutex sync.Mutex
	did   = map[string]int{}
)

type object = map[string]any

func say(what any) {
	line, err := json.Marshal(what)
	check(err)
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Println(string(line))
}

func count(what string, by int) {
	mutex.Lock()
	defer mutex.Unlock()
	did[what] += by
}

func received() int {
	mutex.Lock()
	defer mutex.Unlock()
	return did["received"]
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pause() { time.Sleep(time.Duration(plan.EveryMs) * time.Millisecond) }

func token(context.Context) (oauth.Auth, error) {
	lifetime := plan.Security.TokenSeconds
	if lifetime == 0 {
		lifetime = 3600
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(object{"sub": plan.Security.User, "iat": now, "exp": now + lifetime})
	encode := base64.RawURLEncoding.EncodeToString
	return oauth.Auth{Token: encode([]byte(`{"alg":"none"}`)) + "." + encode(claims) + "."}, err
}

func options() []kgo.Opt {
	id := plan.ClientID
	if id == "" {
		id = "franz-go"
	}
	all := []kgo.Opt{kgo.SeedBrokers(strings.Split(plan.Bootstrap, ",")...), kgo.ClientID(id),
		kgo.ProducerLinger(5 * time.Millisecond)}
	if plan.Security.CA != "" {
		authority, err := os.ReadFile(plan.Security.CA)
		check(err)
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		config.RootCAs.AppendCertsFromPEM(authority)
		if plan.Security.Cert != "" {
			pair, err := tls.LoadX509KeyPair(plan.Security.Cert, plan.Security.Key)
			check(err)
			config.Certificates = []tls.Certificate{pair}
		}
		all = append(all, kgo.DialTLSConfig(config))
	}
	var mechanism sasl.Mechanism
	switch plan.Security.Mechanism {
	case "PLAIN":
		mechanism = plain.Auth{User: plan.Security.User, Pass: plan.Security.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		mechanism = scram.Auth{User: plan.Security.User, Pass: plan.Security.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		mechanism = scram.Auth{User: plan.Security.User, Pass: plan.Security.Password}.AsSha512Mechanism()
	case "OAUTHBEARER":
		mechanism = oauth.Oauth(token)
	}
	if mechanism != nil {
		all = append(all, kgo.SASL(mechanism))
	}
	return all
}

func (p producing) options(transaction string) []kgo.Opt {
	codec := map[string]kgo.CompressionCodec{"": kgo.NoCompression(), "none": kgo.NoCompression(),
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(),
		"zstd": kgo.ZstdCompression()}[p.Compression]
	acks := map[string]kgo.Acks{"": kgo.AllISRAcks(), "all": kgo.AllISRAcks(), "1": kgo.LeaderAck(),
		"0": kgo.NoAck()}[p.Acks]
	all := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks)}
	if transaction != "" {
		all = append(all, kgo.TransactionalID(transaction))
	} else if !p.Idempotent {
		all = append(all, kgo.DisableIdempotentWrite())
	}
	return all
}

func produce(stop context.Context) {
	for _, what := range []string{"published", "confirmed", "refused", "committed", "aborted"} {
		count(what, 0)
	}
	all := append(options(), kgo.DefaultProduceTopic(plan.Topic))
	size := plan.Count
	if plan.Transaction != nil {
		all = append(all, plan.producing.options(plan.Transaction.ID)...)
		size = plan.Transaction.Size
	} else {
		all = append(all, plan.producing.options("")...)
	}
	if plan.Partition != nil {
		all = append(all, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	client, err := kgo.NewClient(all...)
	check(err)
	check(client.Ping(context.Background()))
	say(object{"ready": true})
	for i := 0; i < plan.Count && stop.Err() == nil; i++ {
		if plan.Transaction != nil && i%size == 0 {
			check(client.BeginTransaction())
		}
		record := &kgo.Record{Value: value(i)}
		if len(plan.Keys) > 0 {
			record.Key = []byte(plan.Keys[i%len(plan.Keys)])
		}
		if plan.Partition != nil {
			record.Partition = *plan.Partition
		}
		for _, header := range plan.Headers {
			var content []byte
			if header[1] != nil {
				content = []byte(*header[1])
			}
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: *header[0], Value: content})
		}
		client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
			if err != nil {
				count("refused", 1)
				say(object{"sent": i, "error": err.Error()})
				return
			}
			count("confirmed", 1)
			line := object{"sent": i, "partition": record.Partition, "offset": record.Offset}
			if plan.Acks == "0" || record.Offset < 0 {
				line["offset"] = nil
			}
			say(line)
		})
		count("published", 1)
		if plan.Transaction != nil && (i%size == size-1 || i == plan.Count-1) {
			check(client.Flush(context.Background()))
			abort := slices.Contains(plan.Transaction.Abort, i/size)
			check(client.EndTransaction(context.Background(), kgo.TransactionEndTry(!abort)))
			ended(i/size, abort)
		}
		pause()
	}
	check(client.Flush(context.Background()))
	if plan.End != "crash" {
		client.Close()
	}
}

func ended(number int, abort bool) {
	outcome := "committed"
	if abort {
		outcome = "aborted"
	}
	count(outcome, 1)
	say(object{"transaction": number, "outcome": outcome})
}

func value(number int) []byte {
	text := fmt.Sprintf(`{"order_id":"order-%d","n":%d`, number, number)
	if plan.Bytes > len(text)+10 {
		text += `,"pad":"` + strings.Repeat("x", plan.Bytes-len(text)-10) + `"`
	}
	return []byte(text + "}")
}

func names(partitions map[string][]int32) [][2]any {
	list := [][2]any{}
	for topic, numbers := range partitions {
		for _, number := range numbers {
			list = append(list, [2]any{topic, number})
		}
	}
	return list
}

func textOf(bytes []byte) any {
	if bytes == nil {
		return nil
	}
	return string(bytes)
}

func said(record *kgo.Record) {
	headers := [][2]any{}
	for _, header := range record.Headers {
		headers = append(headers, [2]any{header.Key, textOf(header.Value)})
	}
	count("received", 1)
	say(object{"topic": record.Topic, "partition": record.Partition, "offset": record.Offset,
		"key": textOf(record.Key), "size": len(record.Value), "headers": headers,
		"timestamp": record.Timestamp.UnixMilli()})
}

func saidOffsets(offsets map[string]map[int32]kgo.EpochOffset) {
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			say(object{"committed": []any{topic, partition, offset.Offset}})
		}
	}
}

func consume(stop context.Context) {
	for _, what := range []string{"received", "committed", "aborted"} {
		count(what, 0)
	}
	all := append(options(), kgo.ConsumeTopics(plan.Topics...), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if plan.ReadCommitted || plan.To != nil {
		all = append(all, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if plan.Group != "" {
		session := plan.SessionMs
		if session == 0 {
			session = 6000
		}
		all = append(all, kgo.ConsumerGroup(plan.Group), kgo.HeartbeatInterval(500*time.Millisecond),
			kgo.SessionTimeout(time.Duration(session)*time.Millisecond), kgo.BlockRebalanceOnPoll(),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, all map[string][]int32) {
				say(object{"assigned": names(all)})
				say(object{"ready": true})
			}),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, all map[string][]int32) {
				say(object{"revoked": names(all)})
			}),
			kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, all map[string][]int32) {
				say(object{"lost": names(all)})
			}))
		if plan.Instance != "" {
			all = append(all, kgo.InstanceID(plan.Instance))
		}
		if plan.Commit == "" || plan.Commit == "auto" {
			if plan.To == nil {
				all = append(all, kgo.AutoCommitInterval(200*time.Millisecond), kgo.AutoCommitMarks())
			}
		} else if plan.To == nil {
			all = append(all, kgo.DisableAutoCommit())
		}
	}
	var session *kgo.GroupTransactSession
	var client *kgo.Client
	var err error
	if plan.To != nil {
		all = append(all, plan.To.producing.options(plan.To.Transaction)...)
		session, err = kgo.NewGroupTransactSession(all...)
		check(err)
		client = session.Client()
	} else {
		client, err = kgo.NewClient(all...)
		check(err)
	}
	if plan.Group == "" {
		say(object{"ready": true})
	}
	batches := 0
	for stop.Err() == nil && (plan.Records == 0 || received() < plan.Records) {
		wait, cancel := context.WithTimeout(stop, 200*time.Millisecond)
		var fetched kgo.Fetches
		if session != nil {
			fetched = session.PollFetches(wait)
		} else {
			fetched = client.PollRecords(wait, plan.MaxBatch)
		}
		cancel()
		for _, failed := range fetched.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) && !errors.Is(failed.Err, context.Canceled) {
				say(object{"failed": failed.Err.Error()})
			}
		}
		if fetched.NumRecords() == 0 {
			client.AllowRebalance()
			continue
		}
		if session != nil {
			check(session.Begin())
		}
		fetched.EachRecord(func(record *kgo.Record) {
			said(record)
			if session != nil {
				client.Produce(context.Background(), &kgo.Record{Topic: plan.To.Topic, Key: record.Key,
					Value: record.Value, Headers: record.Headers}, nil)
			}
			pause()
		})
		switch {
		case session != nil:
			abort := slices.Contains(plan.To.Abort, batches)
			offsets := client.UncommittedOffsets()
			committed, err := session.End(context.Background(), kgo.TransactionEndTry(!abort))
			check(err)
			ended(batches, !committed)
			if committed {
				saidOffsets(offsets)
			}
			batches++
		case plan.Group != "" && plan.Commit == "batch":
			offsets := client.UncommittedOffsets()
			if err := client.CommitUncommittedOffsets(context.Background()); err == nil {
				saidOffsets(offsets)
			} else {
				// With the next batch, if the partition is still its own then.
				say(object{"failed": err.Error()})
			}
		case plan.Group != "" && plan.Commit != "never":
			client.MarkCommitRecords(fetched.Records()...)
		}
		client.AllowRebalance()
	}
	if plan.End == "crash" {
		return
	}
	if plan.Group != "" && plan.Commit != "never" && session == nil {
		check(client.CommitMarkedOffsets(context.Background()))
	}
	if session != nil {
		session.Close()
	} else {
		client.Close()
	}
}

func main() {
	check(json.Unmarshal([]byte(os.Args[1]), &plan))
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if plan.Role == "produce" {
		produce(stop)
	} else {
		consume(stop)
	}
	say(did)
}
