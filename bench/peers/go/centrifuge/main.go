// Centrifugo's engine (the centrifuge library) with a memory broker, JSON protocol. centrifuge PORT
//
// Any client may subscribe and publish. No history, no presence, no compression: its cheapest setting. It joins what waits for
// a client into one frame by itself (16 messages by default; -1 lifts the limit).
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
)

func main() {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: 16 << 20, ClientChannelLimit: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{UserID: ""},
			MaxMessagesInFrame: -1,
			PingPongConfig:     &centrifuge.PingPongConfig{PingInterval: -1},
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{}, nil)
		})
		client.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
			reply(centrifuge.PublishReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	http.Handle("/", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{UseWriteBufferPool: true}))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
