"""What an edit did to the people in the pictures, measured by networks that no edit was optimised against."""
