"""What a machine without a shop needs: embedded servers, a sample shop, the import of CSV files."""
