"""Raw gateway logs -> lake. Knows gateways; knows no question."""
