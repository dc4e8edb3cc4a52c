// A stand-in for Terraform's google provider, for tests: it has the schema that the provider publishes
// and makes the calls that the provider makes, for the few resources that terraform/ uses. It talks
// only to endpoints that are named to it, never to Google. Never for real use.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
)

const help = `A stand-in for Terraform's google provider, for the tests of this repository only.
Never use it for real: it knows few resources, and only what terraform/ sets of them.

It is started by terraform. Its environment:
  STANDIN_SCHEMA            the provider's schema, as schema.mjs writes it
  GOOGLE_*_CUSTOM_ENDPOINT  where each service is; without one, a service is refused
`

func main() {
	for _, arg := range os.Args[1:] {
		if strings.TrimLeft(arg, "-") == "help" || arg == "-h" {
			fmt.Print(help)
			return
		}
	}
	schemas, err := loadSchemas(os.Getenv("STANDIN_SCHEMA"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "the stand-in for the google provider cannot start: %v\n", err)
		os.Exit(1)
	}
	server := &server{schemas: schemas}
	// Protocol 5, as the google provider itself.
	err = tf5server.Serve("registry.terraform.io/hashicorp/google", func() tfprotov5.ProviderServer { return server })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
