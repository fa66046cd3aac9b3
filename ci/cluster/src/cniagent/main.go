// cniagent is the cluster's network: on each node it writes the CNI config
// for the pod range that Kubernetes gave the node, and keeps one route for
// each other node's range. Standard library only; it calls ip and iptables.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	saDir    = "/var/run/secrets/kubernetes.io/serviceaccount/"
	confPath = "/etc/cni/net.d/10-frangible.conflist"
	conf     = `{"cniVersion":"0.4.0","name":"frangible","plugins":[
 {"type":"ptp","mtu":1500,"ipMasq":false,
  "ipam":{"type":"host-local","dataDir":"/run/cni-ipam","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":"%s"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`
)

type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ PodCIDR string }
		Status   struct {
			Addresses []struct{ Type, Address string }
		}
	}
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func get(c *http.Client, base string) (*nodeList, error) {
	token, err := os.ReadFile(saDir + "token")
	if err != nil {
		return nil, err
	}
	req, _ := http.NewRequest("GET", base+"/api/v1/nodes?resourceVersion=0", nil)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return nil, fmt.Errorf("list nodes: %s", resp.Status)
	}
	var l nodeList
	return &l, json.NewDecoder(resp.Body).Decode(&l)
}

// sync applies the node list; routes holds what was set last time.
func sync(l *nodeList, self string, routes map[string]string) error {
	want := map[string]string{}
	for _, n := range l.Items {
		if n.Spec.PodCIDR == "" {
			continue
		}
		if n.Metadata.Name == self {
			text := fmt.Sprintf(conf, n.Spec.PodCIDR)
			if old, _ := os.ReadFile(confPath); string(old) != text {
				if err := os.WriteFile(confPath+".tmp", []byte(text), 0o644); err != nil {
					return err
				}
				if err := os.Rename(confPath+".tmp", confPath); err != nil {
					return err
				}
				log.Printf("CNI config written for %s", n.Spec.PodCIDR)
			}
			continue
		}
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" {
				want[n.Spec.PodCIDR] = a.Address
			}
		}
	}
	for dst, via := range want {
		if routes[dst] == via {
			continue
		}
		if _, err := run("ip", "route", "replace", dst, "via", via); err != nil {
			return err
		}
		log.Printf("route %s via %s", dst, via)
		routes[dst] = via
	}
	for dst := range routes {
		if want[dst] == "" {
			_, _ = run("ip", "route", "del", dst)
			log.Printf("route %s gone", dst)
			delete(routes, dst)
		}
	}
	return nil
}

// masquerade hides pod addresses from everything that is not the pod network.
func masquerade(podNet string) error {
	rule := []string{"POSTROUTING", "-s", podNet, "!", "-d", podNet, "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", "MASQUERADE"}
	if _, err := run("iptables", append([]string{"-w", "-t", "nat", "-C"}, rule...)...); err == nil {
		return nil
	}
	_, err := run("iptables", append([]string{"-w", "-t", "nat", "-A"}, rule...)...)
	return err
}

func main() {
	self, podNet := os.Getenv("NODE_NAME"), os.Getenv("POD_SUBNET")
	endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT")
	if endpoint == "" {
		endpoint = net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	pem, err := os.ReadFile(saDir + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if err := masquerade(podNet); err != nil {
		log.Fatal(err)
	}
	routes, last := map[string]string{}, ""
	for ; ; time.Sleep(2 * time.Second) {
		l, err := get(client, "https://"+endpoint)
		if err == nil {
			err = sync(l, self, routes)
		}
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if msg != last && msg != "" {
			log.Print(msg)
		}
		last = msg
	}
}
